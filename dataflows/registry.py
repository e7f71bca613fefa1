"""Where this installation's models are: the shipped registry, or the operator's own beside his state."""

from pathlib import Path

from infra.models.loading import LoadedModel, load_active
from infra.models.manifest import RegistryError
from infra.models.registry import Registry
from infra.models.signing import SignatureRefusedError, Signer, load_or_create_signer, trusted_keys
from infra.models.store import SignedStore
from infra.settings import Settings
from operators.voters import model_name

SHIPPED = Path(__file__).parents[1] / "onnx_models" / "artefacts"
"""The registry that comes with the release, signed by the project."""


def registry_root(settings: Settings) -> Path:
    """Return the folder of the registry that serves: as set, else the operator's own, else shipped."""
    if settings.registry.root:
        return Path(settings.registry.root)
    own = own_root(settings)
    return own if SignedStore(own, {}).exists() else SHIPPED


def own_root(settings: Settings) -> Path:
    """Return the folder of the operator's own registry."""
    return settings.state_dir / "models"


def open_registry(settings: Settings, root: Path | None = None) -> Registry:
    """Return the registry in `root` (None: the one that serves), read under the known keys."""
    keys = trusted_keys(settings.registry.public_keys, settings.state_dir)
    return Registry(root or registry_root(settings), keys, settings.registry.versions_kept)


def open_to_change(
    settings: Settings, root: Path | None = None, signer: Signer | None = None
) -> tuple[Registry, Signer]:
    """Return a registry that may be changed, and who signs.

    The shipped registry is never changed for an operator: his own begins as a copy of it, signed by
    his key. A folder that he names is used as it is, and made if it holds none.

    Raises:
        RegistryError, SignatureRefusedError, ModelRefusedError, OSError: as `Registry` says.
    """
    signer = signer or load_or_create_signer(settings.state_dir)
    named = root or (Path(settings.registry.root) if settings.registry.root else None)
    if named is None:
        return open_registry(settings, SHIPPED).copy_to(own_root(settings), signer), signer
    registry = open_registry(settings, named)
    if not registry.store.exists():
        registry.create(signer)
    return registry, signer


def load_voting(settings: Settings) -> dict[str, LoadedModel]:
    """Return what serves for each ONNX voter that is on.

    Where the active version is refused, the newest before it that loads serves.
    """
    registry = open_registry(settings)
    return {
        voter: load_active(registry, model_name(voter, model))
        for voter, model in settings.models.items()
        if model.enabled and model.kind == "onnx"
    }


def find_refused(settings: Settings) -> list[str]:
    """Return why what should serve was refused; a model without an active version is none of these."""
    try:
        open_registry(settings).read()
    except (RegistryError, SignatureRefusedError, OSError) as error:
        return [str(error)]
    return [
        refusal.reason
        for loaded in load_voting(settings).values()
        for refusal in loaded.refusals
        if refusal.version
    ]


def read_statuses(settings: Settings, root: Path) -> dict[tuple[str, str], str]:
    """Return the standing of each (model, version) of the registry in `root`; none if it has no manifest.

    Raises RegistryError, SignatureRefusedError for a manifest that cannot be read or trusted.
    """
    registry = open_registry(settings, root)
    if not registry.store.exists():
        return {}
    return {(one.model, one.version): one.status.value for one in registry.read().entries()}


def artefact_folders(settings: Settings) -> list[Path]:
    """Return the folder of every version in the registry; none if it cannot be trusted."""
    registry = open_registry(settings)
    try:
        entries = registry.read().entries()
    except (RegistryError, SignatureRefusedError, OSError):
        return []
    return [registry.store.folder(entry.model, entry.version) for entry in entries]
