"""What a released contract may gain, and nothing else: values of an enumeration and optional fields."""

from typing import Any

import msgspec
from msgspec import Struct


def describe_fields(message: type[Struct]) -> dict[str, str]:
    """Return each field's JSON Schema and whether it is required, as canonical text."""
    (schema,), components = msgspec.json.schema_components([message])
    own = components[schema["$ref"].rsplit("/", 1)[1]]
    required = set(own.get("required", ()))
    return {
        name: msgspec.json.encode(
            {"required": name in required, "schema": _bare(kind, components)}, order="sorted"
        ).decode()
        for name, kind in own["properties"].items()
    }


def _bare(kind: Any, components: dict[str, Any]) -> Any:
    """Return `kind` with references resolved and without what only humans read."""
    if isinstance(kind, dict):
        if "$ref" in kind:
            return _bare(components[kind["$ref"].rsplit("/", 1)[1]], components)
        return {
            name: _bare(inner, components)
            for name, inner in kind.items()
            if name == "properties" or name not in {"description", "title"}
        }
    return [_bare(inner, components) for inner in kind] if isinstance(kind, list) else kind


def has_grown(released: Any, today: Any) -> bool:
    """Return whether `today` says the same as `released` but for what a contract may gain.

    An enumeration may gain a value, a nested message an optional field.
    """
    if not (isinstance(released, dict) and isinstance(today, dict)):
        return bool(released == today)
    optional = {name: kind for name, kind in today.items() if name not in released}
    if optional or not released.keys() <= today.keys():
        return False
    return all(_part_has_grown(name, kind, today[name]) for name, kind in released.items())


def _part_has_grown(name: str, released: Any, today: Any) -> bool:
    if name == "enum":
        return set(released) <= set(today)
    if name == "properties":
        gained = [kind for field, kind in today.items() if field not in released]
        same = released.keys() <= today.keys()
        return (
            same
            and all("default" in kind for kind in gained)
            and all(has_grown(kind, today[field]) for field, kind in released.items())
        )
    return has_grown(released, today)
