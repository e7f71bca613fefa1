"""Everything that is derived from the contracts, as files: `python -m schemas.exports --out FOLDER`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from schemas.batches import ProgressMarked
from schemas.codec import CONTRACT_VERSION, contract_hash
from schemas.ddl import all_ddl
from schemas.dictionary import render_dictionary
from schemas.ticks import TickLine
from schemas.topics import message_topics


def contract_classes() -> list[type[Struct]]:
    """Return every class that travels on a topic, in the order of the topics."""
    return [
        TickLine,
        *(topic.message for topic in message_topics() if topic.message),
        ProgressMarked,
    ]


def render_json_schema(message: type[Struct]) -> str:
    """Return the JSON Schema (2020-12) of `message`, with its version and hash, as text."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": f"{message.__name__};{CONTRACT_VERSION};{contract_hash(message)}",
        **msgspec.json.schema(message),
    }
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode() + "\n"


def render_all() -> dict[str, str]:
    """Return every derived file: text by path relative to the output folder."""
    files = {
        f"json-schema/{each.__name__}.json": render_json_schema(each) for each in contract_classes()
    }
    files["data-dictionary.md"] = render_dictionary()
    files["tables.sql"] = "-- Rendered from the contracts in schemas/; do not edit.\n\n" + all_ddl()
    return files


def write_all(folder: Path) -> list[Path]:
    """Write every derived file below `folder` and return the paths."""
    written = []
    for name, text in render_all().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """Render into the folder of `--out`; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m schemas.exports", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/reference"))
    folder = parser.parse_args(arguments).out
    sys.stdout.write(f"{len(write_all(folder))} files written below {folder}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
