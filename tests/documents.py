"""The documents of the repository as tests see them: pages, fenced blocks, links, commands."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import typer

from dataflows.cli.main import app

ROOT = Path(__file__).parents[1]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- test: (\w+) -->\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


class Block(NamedTuple):
    """One fenced block of a page."""

    page: Path
    language: str
    text: str


def pages() -> list[Path]:
    """Return every Markdown page, the README first."""
    below = [*sorted((ROOT / "docs").rglob("*.md")), *(ROOT / "onnx_models").rglob("*.md")]
    return [*sorted(ROOT.glob("*.md"), key=lambda path: path.name != "README.md"), *below]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(language: str) -> list[Block]:
    """Return every fenced block of `language`."""
    return [
        Block(page, found, text)
        for page in pages()
        for found, text in _FENCE.findall(page.read_text(encoding="utf-8"))
        if found == language
    ]


def marked(page: str, mark: str) -> str:
    """Return the block behind `<!-- test: mark -->`."""
    found = dict(_MARK.findall((ROOT / page).read_text(encoding="utf-8")))
    return found[mark]


def links() -> Iterator[tuple[Path, str]]:
    """Yield (page, target) of every link that stays in the repository."""
    for page in pages():
        text = _FENCE.sub("", page.read_text(encoding="utf-8"))
        for target in _LINK.findall(text):
            if "://" not in target and not target.startswith("#"):
                yield page, target.partition("#")[0]


def shell_lines() -> Iterator[tuple[str, list[str]]]:
    """Yield (page, words) of every line that a page tells to type; inline code in tables counts."""
    for block in blocks("sh"):
        for line in block.text.replace("\\\n", " ").splitlines():
            yield name_of(block.page), _words(line)
    for page in pages():
        text = _FENCE.sub("", page.read_text(encoding="utf-8"))
        for line in re.findall(r"`((?:quantstream|make) [^`]+)`", text):
            yield name_of(page), _words(line)


def _words(line: str) -> list[str]:
    inner = re.findall(r"\$\((quantstream [^|)]+)", line)
    text = inner[0] if inner else line
    try:
        words = shlex.split(text, comments=True)
    except ValueError:
        # A quotation that goes on over several lines, as an SQL text does.
        words = text.split()
    return words[: words.index("|")] if "|" in words else words


def find_fault(words: list[str]) -> str:
    """Return what is wrong with a `quantstream` command, empty if nothing."""
    command = typer.main.get_command(app)
    rest = words[1:]
    while rest and hasattr(command, "commands"):
        name, *rest = rest
        if name.startswith("-"):
            return "" if name in {"--help", "-h"} else f"option {name!r} before a verb"
        if name not in command.commands:
            return f"unknown verb {name!r}"
        command = command.commands[name]
    known = {option for parameter in command.params for option in parameter.opts}
    known |= {"--help", "-h"}
    unknown = [word for word in rest if word.startswith("-") and word.split("=")[0] not in known]
    return f"unknown options {unknown}" if unknown else ""
