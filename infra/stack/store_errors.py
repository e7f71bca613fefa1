"""ClickHouse's error text, error codes and HTTP statuses, as the store answers them."""

import re

# Source: exceptionCodeToHTTPStatus.cpp of ClickHouse. Every code not named there answers 500.
STATUS_BY_CODE = {
    194: 401,  # REQUIRED_PASSWORD
    **dict.fromkeys((192, 193, 497, 512, 516), 403),
    **dict.fromkeys((36, 427, 6, 25, 26, 27, 38, 41, 72, 441, 675, 676, 376, 15, 44, 8), 400),
    **dict.fromkeys((37, 123, 167, 168, 223, 62, 117, 53, 321), 400),
    **dict.fromkeys((60, 46, 47, 50, 56, 81, 115, 152, 63, 73, 336, 78, 511), 404),
    159: 408,  # TIMEOUT_EXCEEDED
    381: 411,  # HTTP_LENGTH_REQUIRED
    229: 413,  # QUERY_IS_TOO_LARGE
    779: 415,  # UNSUPPORTED_MEDIA_TYPE
    48: 501,  # NOT_IMPLEMENTED
    **dict.fromkeys((209, 76, 439), 503),
}
STATUS_DEFAULT = 500
STD_EXCEPTION = 1001
ENGINE_TEXT = re.compile(r"Code: (?P<code>\d+)\. DB::Exception: (?P<text>.*)", re.DOTALL)
NAME_TAIL = re.compile(r"\((?P<name>[A-Z][A-Z0-9_]+)\)\s*$")
# Inline rows reach the engine by way of a file, which is none of the client's business.
FILE_TRACE = re.compile(
    r" ?\(in file/uri [^)]*\):?|:? ?While executing File(?:: data for INSERT was parsed from file)?"
)
NESTED_TAIL = re.compile(r"(?: \([A-Z][A-Z0-9_]+\))? \(version [^)]*\)\.?(?= |$)")


class StoreError(Exception):
    """A failure the client is told about in ClickHouse's own words.

    `code` and `name` are ClickHouse's error code and its symbol, `text` the explanation, `status`
    the HTTP status.
    """

    def __init__(self, code: int, name: str, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.name = name
        self.text = text
        self.status = STATUS_BY_CODE.get(code, STATUS_DEFAULT) if status is None else status

    def render(self, version: str) -> str:
        """Return the error body of ClickHouse's HTTP interface, ending in a line break."""
        return f"Code: {self.code}. DB::Exception: {self.text} ({self.name}) (version {version})\n"


def read_engine_error(raw: str) -> StoreError:
    """Turn the engine's exception text into a `StoreError`.

    The engine repeats the prefix and the suffix once per layer an exception passed through; the
    client sees them once, as from a server.
    """
    match = ENGINE_TEXT.search(raw)
    if match is None:
        return StoreError(STD_EXCEPTION, "STD_EXCEPTION", raw.strip())
    code, text = int(match["code"]), match["text"].strip()
    tail = NAME_TAIL.search(text)
    name = tail["name"] if tail else "UNKNOWN_EXCEPTION"
    if tail:
        text = text[: tail.start()].rstrip()
    while (inner := ENGINE_TEXT.match(text)) and int(inner["code"]) == code:
        text = inner["text"]
    text = FILE_TRACE.sub("", NESTED_TAIL.sub("", text)).rstrip(" :\n")
    return StoreError(code, name, text)
