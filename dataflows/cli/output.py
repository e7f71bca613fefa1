"""How every verb speaks: a table for people, one JSON document for programs, four exit codes."""

import errno
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


class ExitCode(IntEnum):
    """What the shell sees; stable."""

    OK = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3


class SafetyRefusedError(RuntimeError):
    """A safety rule forbids the request; exit code 3."""


_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def print_json(document: Any) -> None:
    """Print `document` as one line of JSON; values that JSON lacks become text."""
    sys.stdout.write(json.dumps(document, default=str) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table for a person."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console.print(table)


def fail(code: ExitCode, text: str, *, as_json: bool = False) -> NoReturn:
    """Print an error and leave with `code`."""
    if as_json:
        print_json({"ok": False, "error": text, "exit_code": int(code)})
    else:
        errors.print(f"[bold red]error[/]: {text}", markup=True, soft_wrap=True)
    raise typer.Exit(int(code))


@contextmanager
def reporting(*, as_json: bool) -> Iterator[None]:
    """Turn the errors that a user can act on into one line and the right exit code."""
    try:
        yield
    except typer.Exit:
        raise
    except SafetyRefusedError as error:
        fail(ExitCode.REFUSED, str(error), as_json=as_json)
    except KeyError:
        raise  # Ours to mend, not the user's.
    except (ValueError, LookupError) as error:
        fail(ExitCode.USAGE, str(error), as_json=as_json)
    except OSError as error:
        fail(ExitCode.FAILED, _explain(error), as_json=as_json)
    except RuntimeError as error:
        fail(ExitCode.FAILED, str(error), as_json=as_json)


def _explain(error: OSError) -> str:
    if error.errno not in _DISK_FULL:
        return str(error)
    return (
        f"the disk must have room for what is written; found {error.strerror!r}; free some space "
        f"and run the command again"
    )
