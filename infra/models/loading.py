"""Load what a registry says serves: exactly the signed bytes, or a reason and the version before."""

from collections.abc import Callable
from weakref import WeakValueDictionary

from msgspec import Struct

from infra.models.manifest import Manifest
from infra.models.registry import Registry
from infra.onnx_session import OnnxSession


class Refusal(Struct, frozen=True, kw_only=True):
    """A version that was not loaded."""

    model: str
    version: str
    reason: str


class LoadedModel(Struct, frozen=True, kw_only=True):
    """What serves for one model."""

    model: str
    version: str = ""
    """Empty if no version could be loaded."""
    session: OnnxSession | None = None
    refusals: tuple[Refusal, ...] = ()
    """Versions that should have served instead and were refused, the wanted one first."""

    @property
    def reason(self) -> str:
        """Return why the wanted version does not serve; empty if it does."""
        return "; ".join(each.reason for each in self.refusals)


def load(registry: Registry, model: str, version: str) -> OnnxSession | str:
    """Return a session over the signed bytes of a version, or the reason why there is none."""
    try:
        return _open(registry, registry.read(), model, version)
    except (ValueError, OSError) as error:
        return str(error)


def load_active(registry: Registry, model: str) -> LoadedModel:
    """Return the active version of `model`; where it is refused, the newest before it that loads.

    Never raises for what lies in the registry: without a trusted manifest no version is loaded.
    """
    try:
        manifest = registry.read()
        wanted = manifest.model(model)
    except (ValueError, OSError) as error:
        return LoadedModel(
            model=model, refusals=(Refusal(model=model, version="", reason=str(error)),)
        )
    if not wanted.active:
        reason = f"model {model!r} has no active version"
        return LoadedModel(model=model, refusals=(Refusal(model=model, version="", reason=reason),))
    refusals = []
    for version in (wanted.active, *reversed(wanted.earlier)):
        try:
            session = _open(registry, manifest, model, version)
        except (ValueError, OSError) as error:
            refusals.append(Refusal(model=model, version=version, reason=str(error)))
            continue
        return LoadedModel(model=model, version=version, session=session, refusals=tuple(refusals))
    return LoadedModel(model=model, refusals=tuple(refusals))


def _open(registry: Registry, manifest: Manifest, model: str, version: str) -> OnnxSession:
    entry = manifest.version(model, version)
    return OnnxSession(registry.store.read_version(entry))


class RegistryLoader:
    """Gives lanes their models; a version is opened once for all that use it at a time."""

    def __init__(self, registry: Registry | Callable[[], Registry]) -> None:
        """Use `registry`, or ask for it before every look; nothing is read yet.

        An operator's first change makes a registry of his own, which running lanes must see too.
        """
        self._registry = registry
        # A version that no lane uses any more is closed: it holds megabytes, and others follow it.
        self._sessions: WeakValueDictionary[tuple[str, str], OnnxSession] = WeakValueDictionary()

    def active_versions(self, model: str) -> tuple[str, ...] | str:
        """Return the active version and those that served before it, newest first.

        Empty: no version is active. A text: the reason why nobody can tell.
        """
        try:
            entry = self._current().read().model(model)
        except (ValueError, OSError) as error:
            return str(error)
        return (entry.active, *reversed(entry.earlier)) if entry.active else ()

    def _current(self) -> Registry:
        found = self._registry
        return found if isinstance(found, Registry) else found()

    def load(self, model: str, version: str) -> OnnxSession | str:
        """Return the session of a version, or the reason why there is none."""
        session = self._sessions.get((model, version))
        if session is not None:
            return session
        found = load(self._current(), model, version)
        if not isinstance(found, str):
            self._sessions[model, version] = found
        return found
