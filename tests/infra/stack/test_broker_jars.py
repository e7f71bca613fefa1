import hashlib
import subprocess

import pytest

from infra.stack.broker_jars import LOCK_PATH, check_jars, find_java, read_lock


@pytest.fixture
def jar(tmp_path):
    path = tmp_path / "a.jar"
    path.write_bytes(b"classes")
    return path


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_jars_of_the_lock_pass(jar):
    check_jars([jar], {"a.jar": digest(jar)})


def test_changed_jar_is_refused(jar):
    locked = {"a.jar": digest(jar)}
    jar.write_bytes(b"other classes")
    with pytest.raises(RuntimeError, match=r"broker jar 'a.jar' must have sha256 .* found"):
        check_jars([jar], locked)


@pytest.mark.parametrize("locked", [{}, {"a.jar": "0", "b.jar": "0"}])
def test_missing_or_unknown_jar_is_refused(jar, locked):
    with pytest.raises(RuntimeError, match=r"must be those of jars.lock; found \['[ab].jar'\]"):
        check_jars([jar], locked)


def test_committed_lock_names_the_broker_and_no_address():
    text = LOCK_PATH.read_text()
    locked = read_lock(LOCK_PATH)
    assert "kafka_2.13-4.3.1.jar" in locked
    assert all(len(value) == 64 for value in locked.values())
    assert "/" not in text


def test_java_is_new_enough():
    text = subprocess.run([find_java(), "-version"], capture_output=True, text=True).stderr
    assert int(text.split('"')[1].split(".")[0]) >= 17
