"""Where this installation's models are: the shipped registry, or the operator's own beside his state."""

import logging
from pathlib import Path

from infra.models.loading import load_active
from infra.models.manifest import RegistryError
from infra.models.registry import Registry
from infra.models.signing import SignatureRefusedError, Signer, load_or_create_signer, trusted_keys
from infra.models.store import SignedStore
from infra.onnx_session import OnnxSession
from infra.settings import Settings
from schemas.settings import ModelSettings

logger = logging.getLogger(__name__)

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


def model_name(voter: str, settings: ModelSettings) -> str:
    """Return the name in the registry of a voter's model."""
    return settings.artefact or voter


def load_scorers(settings: Settings) -> dict[str, OnnxSession | str]:
    """Return each ONNX voter's active model, or the reason why it abstains.

    Where the active version is refused, the newest before it that loads serves.
    """
    registry = open_registry(settings)
    scorers: dict[str, OnnxSession | str] = {}
    for voter, model in settings.models.items():
        if model.enabled and model.kind == "onnx":
            loaded = load_active(registry, model_name(voter, model))
            for refusal in loaded.refusals:
                logger.warning(
                    "model %s %s refused; %s", refusal.model, refusal.version, refusal.reason
                )
            scorers[voter] = loaded.session or loaded.reason
    return scorers


def artefact_folders(settings: Settings) -> list[Path]:
    """Return the folder of every version in the registry; none if it cannot be trusted."""
    registry = open_registry(settings)
    try:
        entries = registry.read().entries()
    except (RegistryError, SignatureRefusedError, OSError):
        return []
    return [registry.store.folder(entry.model, entry.version) for entry in entries]
