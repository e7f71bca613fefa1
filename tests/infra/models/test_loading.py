"""Only exactly the signed bytes serve; what is refused leaves the version before it serving."""

from weakref import ref

import numpy as np
import pytest

from infra.models.loading import RegistryLoader, load, load_active
from infra.models.registry import Registry
from tests.infra.models.artefacts import WIDTH
from tests.infra.models.test_registry import flip

ROWS = np.zeros((1, WIDTH), dtype=np.float32)


@pytest.fixture
def two(world):
    """A world whose second version serves, and both versions."""
    first, second = world.add(), world.add()
    world.registry.activate("lightgbm", second, world.stamp())
    return world, first, second


def test_the_active_version_is_loaded_with_the_hash_of_the_manifest(two):
    world, _, second = two
    loaded = load_active(world.registry, "lightgbm")
    entry = world.registry.read().version("lightgbm", second)
    assert (loaded.version, loaded.reason) == (second, "")
    assert loaded.session.content_hash == entry.content_hash
    assert loaded.session.version == second
    assert loaded.session.score(ROWS).shape == (1, 3)


@pytest.mark.acceptance("S-015", criterion="a flipped byte is refused, the version before serves")
@pytest.mark.parametrize("name", ["model.onnx", "card.json"])
@pytest.mark.parametrize("at", [0, 40, -2])
def test_a_flipped_byte_is_refused_and_the_version_before_serves(two, name, at, measured):
    world, first, second = two
    flip(world.registry.store.folder("lightgbm", second) / name, at)
    loaded = load_active(world.registry, "lightgbm")
    measured(loaded.reason)
    assert (loaded.version, loaded.session.version) == (first, first)
    (refusal,) = loaded.refusals
    assert (refusal.model, refusal.version) == ("lightgbm", second)
    assert f"found '{name}' hashes to" in refusal.reason


def test_every_byte_of_an_artefact_is_covered(two):
    world, first, second = two
    folder = world.registry.store.folder("lightgbm", second)
    entry = world.registry.read().version("lightgbm", second)
    assert set(entry.files) == {path.name for path in folder.iterdir()}
    for path in folder.iterdir():
        for at in range(0, path.stat().st_size, max(path.stat().st_size // 20, 1)):
            flip(path, at)
            assert load_active(world.registry, "lightgbm").version == first
            flip(path, at)
    assert load_active(world.registry, "lightgbm").version == second


@pytest.mark.parametrize("change", ["missing", "added", "gone", "swapped"])
def test_a_folder_that_differs_is_refused(two, change):
    world, first, second = two
    folder = world.registry.store.folder("lightgbm", second)
    other = world.registry.store.folder("lightgbm", first)
    match change:
        case "missing":
            (folder / "model.onnx").unlink()
        case "added":
            (folder / "weights.bin").write_bytes(b"1")
        case "gone":
            folder.rename(folder.with_name("elsewhere"))
        case "swapped":
            # A whole and honest artefact in the wrong place: its own card fits it.
            folder.rename(folder.with_name("elsewhere"))
            other_copy = {path.name: path.read_bytes() for path in other.iterdir()}
            folder.mkdir()
            for name, content in other_copy.items():
                (folder / name).write_bytes(content)
    loaded = load_active(world.registry, "lightgbm")
    assert loaded.version == first
    assert [each.version for each in loaded.refusals] == [second]


def test_with_every_version_refused_nothing_serves_and_each_reason_is_told(two):
    world, first, second = two
    for version in (first, second):
        flip(world.registry.store.folder("lightgbm", version) / "model.onnx")
    loaded = load_active(world.registry, "lightgbm")
    assert (loaded.version, loaded.session) == ("", None)
    assert [each.version for each in loaded.refusals] == [second, first]
    assert first in loaded.reason
    assert second in loaded.reason


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("unsigned", "must be signed"),
        ("edited", "of other bytes"),
        ("stranger", "must be signed by one of"),
        ("none", "must hold registry.json"),
        ("unknown", "model must be one of"),
        ("retired", "has no active version"),
    ],
)
def test_without_a_trusted_manifest_nothing_is_loaded(two, damage, reason):
    world, _, second = two
    registry, name = world.registry, "lightgbm"
    match damage:
        case "unsigned":
            (world.root / "registry.sig").unlink()
        case "edited":
            flip(world.root / "registry.json", -2)
        case "stranger":
            registry = Registry(world.root, {"local": "AAAA"})
        case "none":
            (world.root / "registry.json").unlink()
        case "unknown":
            name = "nobody"
        case "retired":
            registry.retire(name, second, world.stamp())
    loaded = load_active(registry, name)
    assert (loaded.version, loaded.session) == ("", None)
    assert reason in loaded.reason
    if damage != "retired":
        assert reason in load(registry, name, second)


def test_a_loader_keeps_no_version_that_nobody_uses(two):
    world, first, _ = two
    loader = RegistryLoader(world.registry)
    opened = loader.load("lightgbm", first)
    watched = ref(opened)
    del opened
    assert watched() is None


def test_a_loader_opens_each_version_once_and_tells_why_it_cannot(two):
    world, first, second = two
    loader = RegistryLoader(world.registry)
    assert loader.active_versions("lightgbm") == (second, first)
    assert "must be one of" in loader.active_versions("nobody")
    opened = loader.load("lightgbm", first)
    flip(world.registry.store.folder("lightgbm", first) / "model.onnx")
    assert loader.load("lightgbm", first) is opened
    assert isinstance(load(world.registry, "lightgbm", first), str)
    assert "must be one of" in loader.load("lightgbm", "9.unknown")
