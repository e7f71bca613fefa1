"""Versions come, serve, go and are pruned; whatever is refused changes nothing."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.models.manifest import GateRefusedError, RegistryError
from infra.models.registry import Registry
from infra.models.signing import SignatureRefusedError
from infra.models.store import RegistryMissingError
from infra.onnx_session import ModelRefusedError
from tests.infra.models.artefacts import World, new_signer, write_artefact


def files_of(root):
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.mark.acceptance("S-084", criterion="first version is installed by a gate and recorded")
def test_the_first_version_that_passed_its_gate_serves_and_is_recorded(world, measured):
    first, second = world.add(), world.add()
    model = world.registry.read().model("lightgbm")
    assert (model.active, model.previous) == (first, "")
    assert world.statuses() == {first: "active", second: "candidate"}
    changes = [(each.action, each.version) for each in world.registry.read().changes]
    measured(changes)
    assert changes == [("bootstrap", first), ("add", second)]


def test_a_first_version_whose_gate_failed_stays_a_candidate(world):
    failed, unknown, passed = world.add(passed=False), world.add(passed=None), world.add()
    assert world.statuses() == {failed: "candidate", unknown: "candidate", passed: "active"}


def test_activation_and_rollback_move_one_active_version_and_keep_the_line(world):
    first, second, third = (world.add() for _ in range(3))
    registry = world.registry
    registry.activate("lightgbm", second, world.stamp())
    change = registry.activate("lightgbm", third, world.stamp("better"))
    assert (change.previous_version, change.signer, change.reason) == (second, "local", "better")
    assert registry.read().model("lightgbm").earlier == (first, second)
    assert world.statuses() == {first: "retired", second: "retired", third: "active"}
    back = registry.rollback("lightgbm", world.stamp("worse"))
    assert (back.version, back.previous_version) == (second, third)
    assert world.statuses() == {first: "retired", second: "active", third: "retired"}
    registry.rollback("lightgbm", world.stamp())
    assert registry.read().model("lightgbm").active == first
    with pytest.raises(RegistryError, match="version to return to must be one of"):
        registry.rollback("lightgbm", world.stamp())


def test_a_rollback_may_name_a_version_that_served_before(world):
    first, second, third = (world.add() for _ in range(3))
    world.registry.activate("lightgbm", second, world.stamp())
    world.registry.activate("lightgbm", third, world.stamp())
    fourth = world.add()
    with pytest.raises(RegistryError, match=f"found '{fourth}'"):
        world.registry.rollback("lightgbm", world.stamp(), fourth)
    world.registry.rollback("lightgbm", world.stamp(), first)
    assert world.registry.read().model("lightgbm").earlier == ()


def test_a_version_that_did_not_pass_its_gate_serves_only_on_the_operators_word(world):
    first, weak = world.add(), world.add(passed=False)
    before = files_of(world.root)
    with pytest.raises(GateRefusedError, match=r"must have passed its gate; found .*'spread': 0.2"):
        world.registry.activate("lightgbm", weak, world.stamp())
    assert files_of(world.root) == before
    world.registry.activate("lightgbm", weak, world.stamp("drill"), despite_gate=True)
    last = world.registry.read().changes[-1]
    assert (last.despite_gate, last.reason, last.previous_version) == (True, "drill", first)


def test_what_serves_cannot_be_activated_again_or_put_into_the_shadow(world):
    first = world.add()
    with pytest.raises(RegistryError, match="found it active"):
        world.registry.activate("lightgbm", first, world.stamp())
    with pytest.raises(RegistryError, match="found it active"):
        world.registry.shadow("lightgbm", first, world.stamp())


def test_a_retired_model_serves_no_more_and_can_come_back(world):
    first, second = world.add(), world.add()
    world.registry.shadow("lightgbm", second, world.stamp())
    world.registry.retire("lightgbm", first, world.stamp())
    assert world.statuses() == {first: "retired", second: "shadow"}
    assert world.registry.read().model("lightgbm").active == ""
    world.registry.rollback("lightgbm", world.stamp())
    assert world.statuses() == {first: "active", second: "shadow"}


def test_a_version_given_up_in_the_shadow_leaves_what_serves_and_may_be_pruned(world):
    first, second = world.add(), world.add()
    world.registry.shadow("lightgbm", second, world.stamp())
    assert second in world.registry.read().model("lightgbm").pinned
    world.registry.retire("lightgbm", second, world.stamp())
    assert world.statuses() == {first: "active", second: "retired"}
    assert world.registry.read().model("lightgbm").pinned == {first}
    with pytest.raises(RegistryError, match="found it retired"):
        world.registry.retire("lightgbm", second, world.stamp())


def test_the_very_same_model_added_again_changes_nothing(world):
    folder = world.artefact()
    first = world.registry.add(folder, world.stamp())
    before = files_of(world.root)
    assert world.registry.add(folder, world.stamp()) == first
    assert files_of(world.root) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"version": "1.00000000"},
        {"name": "../escape"},
        {"name": "UPPER"},
        {"name": ""},
    ],
)
def test_a_name_that_is_no_folder_or_hides_its_bytes_is_refused(world, changes):
    before = files_of(world.root)
    with pytest.raises(RegistryError, match="artefact must be named in lower case"):
        world.registry.add(world.artefact(**({"name": "x"} | changes)), world.stamp())
    assert files_of(world.root) == before


def test_a_version_is_never_replaced_by_other_bytes(world, tmp_path):
    one = write_artefact(tmp_path / "one", seed=1)
    added = world.registry.add(one, world.stamp())
    # Both hashes stand in the name, so only the bytes tell them apart.
    from hashlib import sha256

    from tests.infra.models.artefacts import linear_model

    other = sha256(linear_model(9)[0].SerializeToString()).hexdigest()[:8]
    both = f"1.{added.content_hash[:8]}.{other}"
    first = write_artefact(tmp_path / "first", name="two", seed=1, version=both)
    second = write_artefact(tmp_path / "second", name="two", seed=9, version=both)
    world.registry.add(first, world.stamp())
    with pytest.raises(RegistryError, match="must keep its bytes"):
        world.registry.add(second, world.stamp())


def test_an_artefact_that_lies_about_its_bytes_is_not_added(world):
    folder = world.artefact()
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes() + b"\0")
    before = files_of(world.root)
    with pytest.raises(ModelRefusedError, match="must hash to"):
        world.registry.add(folder, world.stamp())
    assert files_of(world.root) == before


def test_a_foreign_model_is_not_added(world, tmp_path):
    from tests.infra.models.artefacts import WIDTH, linear_model

    foreign = linear_model(1, width=WIDTH - 1)[0].SerializeToString()
    with pytest.raises(ModelRefusedError, match=r"must read one tensor\(float\)"):
        world.registry.add(world.artefact(model=foreign), world.stamp())
    outside = linear_model(1)[0]
    tensor = outside.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    tensor.external_data.add(key="location", value="weights.bin")
    with pytest.raises(ModelRefusedError, match="must keep every tensor inside the file"):
        world.registry.add(world.artefact(model=outside.SerializeToString()), world.stamp())
    (folder := world.artefact()).joinpath("weights.bin").write_bytes(b"1")
    with pytest.raises(ModelRefusedError, match="exactly the files of its card"):
        world.registry.add(folder, world.stamp())
    assert world.registry.read().models == {}


@pytest.mark.acceptance("S-014", criterion="keeps 10 per model, never prunes active or previous")
def test_old_versions_go_and_what_serves_stays(world, measured):
    versions = [world.add() for _ in range(3)]
    world.registry.activate("lightgbm", versions[1], world.stamp())
    versions += [world.add() for _ in range(10)]
    kept = list(world.statuses())
    measured(f"{len(kept)} of {len(versions)} kept")
    assert len(kept) == 10
    assert kept == [*versions[:2], *versions[-8:]]
    folders = sorted(path.name for path in (world.root / "objects" / "lightgbm").iterdir())
    assert folders == sorted(kept)
    world.registry.rollback("lightgbm", world.stamp())
    assert world.registry.verify() == []


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["add", "activate", "rollback", "shadow", "retire", "prune"]),
        st.integers(0, 20),
        st.sampled_from(["lightgbm", "nhits"]),
    ),
    max_size=25,
)


@settings(max_examples=25)
@given(ACTIONS)
def test_pruning_never_takes_what_serves_or_served_before(actions):
    with TemporaryDirectory() as folder:
        world = World(Path(folder), versions_kept=3)
        for action, number, name in actions:
            act(world, action, number, name)
            manifest = world.registry.read()
            for model in manifest.models.values():
                assert model.pinned <= model.versions.keys()
                assert set(model.earlier) <= model.versions.keys()
                active = [each for each in model.versions.values() if each.status == "active"]
                assert [each.version for each in active] == [model.active] * bool(model.active)
                assert len(model.versions) <= max(3, len(model.pinned) + 1)
        assert world.registry.verify() == []


def act(world, action, number, name):
    registry, stamp = world.registry, world.stamp()
    if action == "add":
        world.add(name)
        return
    if action == "prune":
        registry.prune(stamp, 1 + number % 4)
        return
    model = registry.read().models.get(name)
    versions = list(model.versions) if model else ["none"]
    version = versions[number % len(versions)]
    before = files_of(world.root)
    try:
        match action:
            case "activate":
                registry.activate(name, version, stamp)
            case "shadow":
                registry.shadow(name, version, stamp)
            case "rollback":
                registry.rollback(name, stamp)
            case "retire":
                registry.retire(name, version, stamp)
    except RegistryError:
        assert files_of(world.root) == before


def test_a_signer_whom_no_reader_knows_changes_nothing(world, tmp_path):
    world.add()
    before = files_of(world.root)
    stranger = new_signer(tmp_path / "strange.pem")
    stamp = msgspec.structs.replace(world.stamp(), signer=stranger)
    with pytest.raises(SignatureRefusedError, match=r"must be signed by one of \['local'\]"):
        world.registry.add(world.artefact(), stamp)
    assert files_of(world.root) == before


def test_an_unsigned_registry_is_neither_read_nor_changed(world):
    version = world.add()
    (world.root / "registry.sig").unlink()
    with pytest.raises(SignatureRefusedError, match="must be signed; found 0 signatures"):
        world.registry.read()
    with pytest.raises(SignatureRefusedError):
        world.registry.activate("lightgbm", version, world.stamp())


def test_a_registry_that_was_changed_by_hand_is_refused(world):
    first, second = world.add(), world.add()
    file = world.root / "registry.json"
    file.write_text(file.read_text().replace(f'"active": "{first}"', f'"active": "{second}"'))
    with pytest.raises(SignatureRefusedError, match="of other bytes"):
        world.registry.read()


def test_a_signature_of_a_stranger_is_refused_until_his_key_is_known(world, tmp_path):
    world.add()
    stranger = new_signer(tmp_path / "strange.pem", "stranger")
    world.registry.sign(stranger)
    with pytest.raises(SignatureRefusedError, match=r"found \['stranger'\] without a fitting"):
        world.registry.read()
    Registry(world.root, {"stranger": stranger.public_text}).read()
    named_like_us = new_signer(tmp_path / "strange2.pem", "local")
    Registry(world.root, {"stranger": stranger.public_text}).sign(named_like_us)
    with pytest.raises(SignatureRefusedError, match=r"found \['local'\] without a fitting"):
        world.registry.read()


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[1]", b'[{"signer": "local"}]'])
def test_a_broken_file_of_signatures_is_refused(world, content):
    (world.root / "registry.sig").write_bytes(content)
    with pytest.raises(SignatureRefusedError):
        world.registry.read()


def test_signing_vouches_for_files_as_they_are_named_or_not_at_all(world):
    version = world.add()
    (world.root / "registry.sig").unlink()
    with pytest.raises(SignatureRefusedError):
        world.registry.sign(world.signer)
    flip(world.registry.store.folder("lightgbm", version) / "model.onnx")
    with pytest.raises(RegistryError, match="must hold what its manifest names"):
        world.registry.sign(world.signer, unverified=True)
    with pytest.raises(SignatureRefusedError):
        world.registry.read()


def flip(file, at=0):
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.chmod(0o644)
    file.write_bytes(bytes(content))


def test_an_unsigned_registry_can_be_vouched_for_by_hand(world):
    world.add()
    (world.root / "registry.sig").unlink()
    world.registry.sign(world.signer, unverified=True)
    assert world.registry.verify() == []


def test_a_registry_of_a_newer_format_is_refused(world):
    manifest = msgspec.structs.replace(world.registry.read(), format=2)
    world.registry.store.write(manifest, world.signer)
    with pytest.raises(RegistryError, match="must have format 1; found 2"):
        world.registry.read()


def test_a_folder_without_a_registry_is_refused(tmp_path):
    with pytest.raises(RegistryMissingError, match=r"must hold registry\.json"):
        Registry(tmp_path / "nowhere", {}).read()
    with pytest.raises(RegistryMissingError, match=r"must hold registry\.json"):
        Registry(tmp_path, {}).read()


def test_every_kind_of_fault_is_named(world):
    versions = [world.add() for _ in range(4)]
    folders = [world.registry.store.folder("lightgbm", version) for version in versions]
    flip(folders[0] / "model.onnx")
    (folders[1] / "card.json").unlink()
    (folders[2] / "more.txt").write_text("x")
    shutil.rmtree(folders[3])
    shutil.copytree(folders[0], folders[0].with_name("1.stray"))
    problems = {(each.version, each.file): each.problem for each in world.registry.verify()}
    assert problems[versions[0], "model.onnx"].startswith("hashes to")
    assert problems[versions[1], "card.json"] == "is missing"
    assert problems[versions[2], "more.txt"] == "is not listed"
    assert "must have a readable" in problems[versions[3], ""]
    assert problems["1.stray", ""] == "is not listed"
    assert len(problems) == 5


def test_a_copy_is_signed_by_its_maker_and_made_once(world, tmp_path):
    version = world.add()
    mine = new_signer(tmp_path / "mine.pem", "mine")
    copy = world.registry.copy_to(tmp_path / "copy", mine)
    assert copy.verify() == []
    assert copy.read().model("lightgbm").active == version
    assert Registry(tmp_path / "copy", {"mine": mine.public_text}).verify() == []
    world.add()
    again = world.registry.copy_to(tmp_path / "copy", mine)
    assert len(again.read().model("lightgbm").versions) == 1


def test_a_tampered_registry_is_not_copied(world, tmp_path):
    version = world.add()
    flip(world.registry.store.folder("lightgbm", version) / "card.json")
    with pytest.raises(ModelRefusedError, match="must be as the manifest says"):
        world.registry.copy_to(tmp_path / "copy", world.signer)
    assert not (tmp_path / "copy" / "registry.json").exists()
