"""Load the settings: defaults, then one TOML file, then `QUANTSTREAM_…`; refuse what is unknown.

`QUANTSTREAM_KAFKA__BOOTSTRAP=host:9092` sets `kafka.bootstrap`; the file is `quantstream.toml` in the
working folder or the one that `QUANTSTREAM_FILE` names.
"""

import difflib
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, Field, SecretStr, ValidationError

from infra.private_folder import make_private
from schemas import settings as sections

PREFIX = "QUANTSTREAM_"
FILE_VARIABLE = "QUANTSTREAM_FILE"
FILE_NAME = "quantstream.toml"


class SettingsError(ValueError):
    """A setting is unknown or invalid; the process does not start."""


class Settings(sections.Section):
    """Every setting of every process."""

    environment: str = Field(default="paper", pattern=r"^[a-z][a-z0-9-]{0,31}$")
    """Prefix of topics and tables; a session is one environment."""
    account: str = Field(default="PAPER-1", pattern=r"^[A-Z0-9-]{1,32}$")
    """The paper account; it has one engine at a time."""
    state_dir: Path = Path(".quantstream")
    """All state of the embedded stack and of the dataflows; removable."""
    kafka: sections.KafkaSettings = sections.KafkaSettings()
    store: sections.StoreSettings = sections.StoreSettings()
    bars: sections.BarSettings = sections.BarSettings()
    features: sections.FeatureSettings = sections.FeatureSettings()
    strategies: dict[str, sections.StrategySettings] = Field(
        default_factory=sections.default_strategies
    )
    """Rule strategies by name; naming one keeps the others."""
    models: dict[str, sections.ModelSettings] = Field(default_factory=sections.default_models)
    """Voters that are not rules, by name; naming one keeps the others."""
    vote: sections.VoteSettings = sections.VoteSettings()
    portfolio: sections.PortfolioSettings = sections.PortfolioSettings()
    paper: sections.PaperSettings = sections.PaperSettings()
    registry: sections.RegistrySettings = sections.RegistrySettings()
    control: sections.ControlSettings = sections.ControlSettings()
    serve: sections.ServeSettings = sections.ServeSettings()
    run: sections.RunSettings = sections.RunSettings()


class LoadedSettings:
    """Settings with the origin of each value."""

    def __init__(self, settings: Settings, origins: Mapping[str, str]) -> None:
        self.settings = settings
        self._origins = dict(origins)

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """Yield (key, effective value, origin) for every leaf; secrets are masked."""
        for key, value in _leaves(self.settings.model_dump(mode="json")):
            yield key, json.dumps(value), self._origins.get(key, "default")


def load_settings(
    file: Path | None = None, environ: Mapping[str, str] | None = None
) -> LoadedSettings:
    """Return the effective settings.

    Raises:
        SettingsError: A file or variable holds an unknown key or an invalid value; the text names the
            key, what was found, and the nearest known key.
    """
    environ = os.environ if environ is None else environ
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    path = file or (Path(environ[FILE_VARIABLE]) if environ.get(FILE_VARIABLE) else None)
    if path is None and Path(FILE_NAME).exists():
        path = Path(FILE_NAME)
    if path is not None:
        _merge(merged, _read_file(path), origins, str(path))
    _merge(merged, _read_environment(environ), origins, "environment")
    try:
        return LoadedSettings(Settings.model_validate(merged), origins)
    except ValidationError as error:
        raise SettingsError(_explain(error, origins)) from error


def settings_json(settings: Settings) -> str:
    """Return the effective settings as canonical JSON, secrets masked and machine paths left out."""
    plain = settings.model_dump(mode="json", exclude={"state_dir": True, "registry": {"root"}})
    return json.dumps(plain, sort_keys=True, separators=(",", ":"))


def settings_hash(settings: Settings) -> str:
    """Return the hash that rides in the `config` header: 16 hex digits of SHA-256."""
    return sha256(settings_json(settings).encode()).hexdigest()[:16]


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        msg = f"settings file {str(path)!r} must be readable TOML; {error}"
        raise SettingsError(msg) from error


def _read_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, text in sorted(environ.items()):
        if not name.startswith(PREFIX) or name == FILE_VARIABLE:
            continue
        node = found
        *parents, leaf = name.removeprefix(PREFIX).lower().split("__")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = _parse(text)
    return found


def _parse(text: str) -> Any:
    """Return lists and tables written as JSON; anything else stays text for the field to judge."""
    if text[:1] in {"[", "{"}:
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text
    return text


def _merge(
    into: dict[str, Any],
    found: Mapping[str, Any],
    origins: dict[str, str],
    origin: str,
    at: str = "",
) -> None:
    for key, value in found.items():
        path = f"{at}{key}"
        if isinstance(value, dict):
            node = into.setdefault(key, _default_table(path))
            _merge(node, value, origins, origin, f"{path}.")
        else:
            into[key] = value
            origins[path] = origin


def _default_table(path: str) -> dict[str, Any]:
    """Naming one strategy or model must not drop the others: start from the defaults."""
    defaults = Settings()
    if path in {"strategies", "models"}:
        table: dict[str, BaseModel] = getattr(defaults, path)
        return {name: entry.model_dump(exclude_defaults=False) for name, entry in table.items()}
    return {}


def _explain(error: ValidationError, origins: Mapping[str, str]) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        origin = origins.get(key, "settings")
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, list(_known_keys()), n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            lines.append(f"setting {key!r} ({origin}) is unknown{hint}")
        else:
            found = "***" if "password" in key else repr(problem["input"])
            lines.append(f"setting {key!r} ({origin}): {problem['msg']}; found {found}")
    return "\n".join(lines)


def _known_keys() -> Iterator[str]:
    yield from _model_keys(Settings, "")


def _model_keys(model: type[BaseModel], at: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"{at}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _model_keys(field.annotation, f"{at}{name}.")


def _leaves(tree: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _leaves(value, f"{at}.{key}" if at else str(key))
    else:
        yield at, tree


def write_settings(settings: Settings, file: Path) -> None:
    """Write the effective settings, secrets included, as TOML that only its owner can read."""
    plain = settings.model_copy(update={"state_dir": settings.state_dir.resolve()})
    tree = plain.model_dump(mode="json", exclude_none=True)
    tree["kafka"]["password"] = secret_text(settings.kafka.password)
    tree["store"]["password"] = secret_text(settings.store.password)
    make_private(file.parent)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        tomli_w.dump(tree, out)


def secret_text(secret: SecretStr) -> str:
    """Return the clear text of `secret`; only the code that opens a connection calls this."""
    return secret.get_secret_value()
