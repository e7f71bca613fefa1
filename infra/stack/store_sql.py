"""What the store must know about a SQL text before the engine sees it.

The engine parses SQL; this module only finds the few marks that decide how a request is served: the
kind of statement, where inline insert data begins, which format the answer has, and the statements
an embedded engine must not run.
"""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

import msgspec

from infra.stack.store_errors import StoreError

TOKEN = re.compile(
    rb"""(?P<space>\s+|--[^\n]*|\#[ !][^\n]*|/\*.*?\*/)
    |(?P<string>'[^'\\]*(?:(?:\\.|'')[^'\\]*)*')
    |(?P<heredoc>\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)
    |`(?P<backticked>[^`\\]*(?:\\.[^`\\]*)*)`
    |"(?P<quoted>[^"\\]*(?:\\.[^"\\]*)*)"
    |(?P<word>[A-Za-z_][A-Za-z0-9_$]*)
    |(?P<number>[0-9][A-Za-z0-9_.]*)
    |(?P<mark>.)""",
    re.DOTALL | re.VERBOSE,
)
READING_WORDS = frozenset(
    {
        "SELECT",
        "WITH",
        "SHOW",
        "DESCRIBE",
        "DESC",
        "EXPLAIN",
        "EXISTS",
        "CHECK",
        "FROM",
        "(",
        "KILL",
    }
)
SESSION_WORDS = frozenset({"SET", "USE"})
# These engines start consumer threads of a server that an embedded engine does not have. Creating
# a Kafka table fails half-way and leaves metadata that makes the directory unopenable ever after.
REFUSED_ENGINES = frozenset({"KAFKA", "RABBITMQ", "NATS", "FILELOG", "S3QUEUE", "AZUREQUEUE"})
REFUSED_SYSTEM_VERBS = frozenset({"SHUTDOWN", "KILL"})
INSERT_HEAD_BYTES_MAX = 262_144  # ClickHouse's own `max_query_size`.


class Token(NamedTuple):
    """One significant token: its upper-case text, whether it is a keyword, its place and depth."""

    text: str
    bare: bool
    start: int
    end: int
    depth: int


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """A classified SQL text.

    `kind` is `read` when an answer has rows, `insert` when `rows_start` marks inline data,
    `session` when it changes the session, else `command`. `output_format` is the explicit FORMAT
    of a reading statement; `selects` tells a SELECT from SHOW, EXPLAIN and the like. For an insert, `head` is the text before FORMAT or VALUES, `place` the
    byte in `head` where `FROM INFILE` fits, `input_format` the name of the data's format.
    """

    kind: Literal["read", "insert", "session", "command"]
    sql: bytes
    output_format: str | None = None
    selects: bool = False
    head: bytes = b""
    place: int = 0
    input_format: str = ""
    rows_start: int = 0


def scan_tokens(sql: bytes) -> Iterator[Token]:
    """Yield the significant tokens of `sql`; comments and white space are left out."""
    depth = 0
    for match in TOKEN.finditer(sql):
        kind = match.lastgroup
        if kind == "space":
            continue
        if kind in {"backticked", "quoted"}:
            text, bare = match[kind].decode("utf-8", "replace").upper(), False
        elif kind in {"string", "heredoc"}:
            text, bare = "'", False
        else:
            text, bare = match[0].decode("utf-8", "replace").upper(), True
        if text == ")" and bare:
            depth -= 1
        yield Token(text, bare, match.start(), match.end(), depth)
        if text == "(" and bare:
            depth += 1


def parse_statement(sql: bytes) -> Statement:
    """Classify one SQL text.

    Raises:
        StoreError: the text is empty, holds several statements, or is one the store refuses.
    """
    first = next(scan_tokens(sql), None)
    if first is None:
        msg = "Syntax error: Empty query"
        raise StoreError(62, "SYNTAX_ERROR", msg)
    if first.bare and first.text == "INSERT":
        return _parse_insert(sql)
    tokens = list(scan_tokens(sql))
    _check_command(tokens)
    words = [token.text for token in tokens if token.bare]
    if first.text in READING_WORDS:
        return Statement(
            kind="read",
            sql=sql,
            output_format=_find_output_format(sql, tokens),
            selects=first.text in {"SELECT", "WITH"},
        )
    temporary = first.text in {"CREATE", "DROP"} and "TEMPORARY" in words[:5]
    kind: Literal["session", "command"] = "command"
    if first.text in SESSION_WORDS or temporary:
        kind = "session"
    return Statement(kind=kind, sql=sql)


def _parse_insert(sql: bytes) -> Statement:
    """Find where the inline data of an INSERT begins; without any it is a command."""
    settings_start: int | None = None
    tokens: list[Token] = []
    for token in scan_tokens(sql[:INSERT_HEAD_BYTES_MAX]):
        tokens.append(token)
        if token.depth or not token.bare:
            continue
        if token.text == "SETTINGS":
            settings_start = token.start
        elif token.text in {"SELECT", "WITH"}:
            break
        elif token.text in {"INFILE", "WATCH"}:
            _refuse(f"INSERT FROM {token.text}", "send the rows in the request body")
        elif token.text == "VALUES":
            place = token.start if settings_start is None else settings_start
            return _build_insert(sql, token.start, place, "Values", token.end)
        elif _names_a_format(tokens):
            name = sql[token.start : token.end].decode()
            place = tokens[-2].start if settings_start is None else settings_start
            return _build_insert(sql, tokens[-2].start, place, name, _skip_to_rows(sql, token.end))
    _check_command(list(scan_tokens(sql)))
    return Statement(kind="command", sql=sql)


def _names_a_format(tokens: list[Token]) -> bool:
    """Whether the last token follows the keyword FORMAT, which may also be a table's name."""
    if len(tokens) < 3 or not tokens[-1].text.isidentifier():
        return False
    before, keyword = tokens[-3], tokens[-2]
    named = keyword.text == "FORMAT" and keyword.bare and keyword.depth == 0
    return named and before.text not in {"INTO", "TABLE", "."}


def _build_insert(sql: bytes, head_end: int, place: int, name: str, rows_start: int) -> Statement:
    return Statement(
        kind="insert",
        sql=sql,
        head=sql[:head_end],
        place=place,
        input_format=name,
        rows_start=rows_start,
    )


def _skip_to_rows(sql: bytes, position: int) -> int:
    """Data starts after one line break, or after blanks (ClickHouse's ParserInsertQuery)."""
    match = re.compile(rb"[ \t\f]*(?:\r?\n)?").match(sql, position)
    return match.end() if match else position


def _find_output_format(sql: bytes, tokens: list[Token]) -> str | None:
    """The FORMAT clause stands last, or just before SETTINGS; elsewhere it is a plain name."""
    for index in range(len(tokens) - 2, 0, -1):
        token, name = tokens[index], tokens[index + 1]
        if token.depth or not token.bare or token.text != "FORMAT":
            continue
        if tokens[index - 1].text == "AS" or not name.text.isidentifier():
            continue
        after = tokens[index + 2].text if len(tokens) > index + 2 else "SETTINGS"
        if after == "SETTINGS":
            return sql[name.start : name.end].decode()
    return None


def _check_command(tokens: list[Token]) -> None:
    """Refuse several statements in one text, and those the store does not run."""
    while len(tokens) > 1 and tokens[-1].bare and tokens[-1].text == ";":
        tokens.pop()
    _check_single(tokens)
    _check_allowed(tokens)


def _check_single(tokens: list[Token]) -> None:
    for token in tokens:
        if token.text == ";" and token.bare:
            msg = f"Syntax error (Multi-statements are not allowed): failed at position {token.start + 1}"
            raise StoreError(62, "SYNTAX_ERROR", msg)


def _check_allowed(tokens: list[Token]) -> None:
    """Refuse what would break the directory, end the process, or touch files past the client."""
    for index, token in enumerate(tokens[:-1]):
        if not token.bare:
            continue
        following = tokens[index + 1]
        if token.text == "ENGINE":
            if following.text == "=" and len(tokens) > index + 2:
                following = tokens[index + 2]
            if following.text in REFUSED_ENGINES:
                _refuse(f"table engine {following.text}", "use a ClickHouse server for it")
        elif token.text == "INTO" and following.text == "OUTFILE":
            _refuse("INTO OUTFILE", "read the rows from the response body")
    verb = tokens[1].text if len(tokens) > 1 else ""
    if tokens[0].text == "SYSTEM" and verb in REFUSED_SYSTEM_VERBS:
        _refuse(f"SYSTEM {verb}", "stop the store process with SIGTERM")


def _refuse(subject: str, remedy: str) -> None:
    msg = f"{subject} is not available in the embedded store; {remedy}"
    raise StoreError(344, "SUPPORT_IS_DISABLED", msg)
