"""Bytes on the wire of the store: request decoding, response encoding, content types, forms."""

import gzip
import hmac
import io
import zlib
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping
from email.parser import BytesParser
from email.policy import HTTP

import lz4.frame  # type: ignore[import-untyped]
import zstandard

from infra.stack.store_errors import StoreError

RESPONSE_ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "lz4": lz4.frame.compress,
    "zstd": zstandard.ZstdCompressor(level=1).compress,
    "gzip": lambda body: gzip.compress(body, compresslevel=1, mtime=0),
    "deflate": zlib.compress,
}
BINARY = "application/octet-stream"
CONTENT_TYPES = {
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
    "TSV": "text/tab-separated-values; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "CSVWithNames": "text/csv; charset=UTF-8; header=present",
    "CSVWithNamesAndTypes": "text/csv; charset=UTF-8; header=present",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "JSONCompactEachRow": "application/x-ndjson; charset=UTF-8",
    "XML": "application/xml; charset=UTF-8",
    "Native": BINARY,
    "Arrow": BINARY,
    "ArrowStream": BINARY,
    "Parquet": BINARY,
    "ORC": BINARY,
    "Avro": BINARY,
    "Npy": BINARY,
    "MsgPack": BINARY,
}


def find_content_type(output_format: str) -> str:
    """Return the `Content-Type` of a ClickHouse output format."""
    known = CONTENT_TYPES.get(output_format)
    if known is not None:
        return known
    for start, content_type in (
        ("RowBinary", BINARY),
        ("Protobuf", BINARY),
        ("TabSeparated", CONTENT_TYPES["TabSeparated"]),
        ("TSV", CONTENT_TYPES["TabSeparated"]),
        ("JSON", "application/json; charset=UTF-8"),
    ):
        if output_format.startswith(start):
            return content_type
    return "text/plain; charset=UTF-8"


def choose_response_encoding(accepted: str) -> str | None:
    """Return the first encoding of ours that an `Accept-Encoding` header names."""
    offered = {part.split(";")[0].strip().lower() for part in accepted.split(",")}
    return next((name for name in RESPONSE_ENCODERS if name in offered), None)


def decode_body(body: bytes, encoding: str, body_bytes_max: int) -> bytes:
    """Undo the `Content-Encoding` of a request body.

    Raises:
        StoreError: the encoding is unknown, the bytes are damaged, or too many come out.
    """
    name = encoding.strip().lower()
    if name in {"", "identity"}:
        return body
    limit = body_bytes_max + 1
    try:
        if name == "gzip":
            plain = gzip.GzipFile(fileobj=io.BytesIO(body)).read(limit)
        elif name == "deflate":
            plain = zlib.decompressobj().decompress(body, limit)
        elif name == "zstd":
            reader = zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True)
            plain = reader.read(limit)
        elif name == "lz4":
            with lz4.frame.open(io.BytesIO(body)) as frames:
                plain = frames.read(limit)
        else:
            msg = f"Unknown compression method {encoding!r}; send gzip, deflate, zstd or lz4"
            raise StoreError(48, "NOT_IMPLEMENTED", msg)
    except (OSError, EOFError, zlib.error, zstandard.ZstdError, RuntimeError) as e:
        msg = f"Cannot decompress request body of Content-Encoding {name}; {e}"
        raise StoreError(354, "ZLIB_INFLATE_FAILED", msg, status=400) from e
    check_body_size(len(plain), body_bytes_max)
    return bytes(plain)


def check_body_size(found_bytes: int, body_bytes_max: int) -> None:
    """Refuse a body beyond the limit.

    Raises:
        StoreError: the body is too large (HTTP status 413).
    """
    if found_bytes > body_bytes_max:
        msg = f"Request body must be at most {body_bytes_max} bytes; send smaller batches"
        raise StoreError(307, "TOO_MANY_BYTES", msg, status=413)


def read_form(body: bytes, content_type: str) -> dict[str, str]:
    """Return the text fields of a multipart form (`query` and `param_…`).

    Raises:
        StoreError: the form carries files (external tables), which chDB has no way to take.
    """
    head = b"Content-Type: " + content_type.encode("latin-1") + b"\r\n\r\n"
    message = BytesParser(policy=HTTP).parsebytes(head + body)
    fields: dict[str, str] = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        if part.get_filename() or not isinstance(content, bytes):
            msg = "External tables are not available in the embedded store; insert the rows first"
            raise StoreError(48, "NOT_IMPLEMENTED", msg)
        fields[str(name)] = content.decode()
    return fields


def read_credentials(headers: Mapping[str, str], url: Mapping[str, str]) -> tuple[str, str]:
    """Return user and password from ClickHouse's headers, basic auth or the URL, in that order.

    Raises:
        StoreError: the `Authorization` header is not readable basic auth.
    """
    if "x-clickhouse-user" in headers:
        return headers["x-clickhouse-user"], headers.get("x-clickhouse-key", "")
    if authorization := headers.get("authorization", ""):
        scheme, _, coded = authorization.partition(" ")
        try:
            user, colon, password = b64decode(coded, validate=True).decode().partition(":")
        except (Base64Error, UnicodeDecodeError, ValueError):
            colon = ""
        if scheme.lower() != "basic" or not colon:
            msg = "Authentication failed: the Authorization header must be readable basic auth"
            raise StoreError(516, "AUTHENTICATION_FAILED", msg)
        return user, password
    return url.get("user", "default"), url.get("password", "")


def check_credentials(found: tuple[str, str], expected: tuple[str, str]) -> None:
    """Compare user and password in constant time.

    Raises:
        StoreError: they differ (code 516, HTTP status 403).
    """
    same_user = hmac.compare_digest(found[0].encode(), expected[0].encode())
    same_password = hmac.compare_digest(found[1].encode(), expected[1].encode())
    if not (same_user and same_password):
        msg = (
            f"{found[0]}: Authentication failed: password is incorrect, "
            "or there is no user with such name."
        )
        raise StoreError(516, "AUTHENTICATION_FAILED", msg)
