import os
import resource
from hashlib import sha256

import pytest

from infra.learner_files import LearnerFiles


def test_what_is_put_is_got_back_by_its_hash(tmp_path):
    files = LearnerFiles(tmp_path / "lane")
    content_hash = files.put(b"a tree")
    assert content_hash == sha256(b"a tree").hexdigest()
    assert files.get(content_hash) == b"a tree"
    assert files.put(b"a tree") == content_hash


def test_nobody_else_can_read_them(tmp_path):
    folder = tmp_path / "lane"
    LearnerFiles(folder).put(b"a tree")
    (file,) = folder.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


def test_one_flipped_bit_is_refused(tmp_path):
    files = LearnerFiles(tmp_path)
    content_hash = files.put(b"a tree")
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"a trea")
    with pytest.raises(ValueError, match="must hash to its name"):
        files.get(content_hash)


def test_a_learner_that_is_gone_is_told_with_the_remedy(tmp_path):
    with pytest.raises(ValueError, match=r"must be in its folder.*remove the recovery folder"):
        LearnerFiles(tmp_path).get("0" * 64)


@pytest.mark.parametrize("name", ["", "../../secret", "A" * 64])
def test_a_name_that_is_no_hash_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="must be a SHA-256 in hex"):
        LearnerFiles(tmp_path).get(name)


def test_the_newest_are_kept(tmp_path):
    files = LearnerFiles(tmp_path, kept=3)
    hashes = [files.put(f"tree {i}".encode()) for i in range(8)]
    assert {one.stem for one in tmp_path.iterdir()} == set(hashes[-3:])
    assert files.get(hashes[-1]) == b"tree 7"


def test_keeping_too_few_is_refused(tmp_path):
    with pytest.raises(ValueError, match="must be at least 2; found 1"):
        LearnerFiles(tmp_path, kept=1)


def test_a_full_disk_leaves_nothing_half_written(tmp_path):
    files = LearnerFiles(tmp_path)
    before = files.put(b"a tree")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match=r"."):
            files.put(bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [one.stem for one in tmp_path.iterdir()] == [before]


def test_a_part_that_a_dead_process_left_is_no_obstacle(tmp_path):
    content_hash = sha256(b"a tree").hexdigest()
    (tmp_path / f"{content_hash}.part").write_bytes(b"a t")
    files = LearnerFiles(tmp_path)
    assert files.get(files.put(b"a tree")) == b"a tree"


def test_what_was_put_last_is_kept_when_the_clock_went_back(tmp_path):
    files = LearnerFiles(tmp_path, kept=3)
    for i in range(3):
        files.put(f"tree {i}".encode())
    hour_ns = 3_600_000_000_000
    for one in tmp_path.iterdir():
        later_ns = one.stat().st_mtime_ns + hour_ns
        os.utime(one, ns=(later_ns, later_ns))
    hashes = [files.put(f"later tree {i}".encode()) for i in range(3)]
    assert {one.stem for one in tmp_path.iterdir()} == set(hashes)


def test_what_is_put_again_counts_as_new(tmp_path):
    files = LearnerFiles(tmp_path, kept=2)
    first = files.put(b"tree 0")
    files.put(b"tree 1")
    again, newest = files.put(b"tree 0"), files.put(b"tree 2")
    assert first == again
    assert {one.stem for one in tmp_path.iterdir()} == {again, newest}
