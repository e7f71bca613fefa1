"""ClickHouse's HTTP interface over a `StoreEngine`, as an ASGI application."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from infra.stack.store_engine import Answer, Query, StoreEngine
from infra.stack.store_errors import StoreError
from infra.stack.store_wire import (
    RESPONSE_ENCODERS,
    check_body_size,
    check_credentials,
    choose_response_encoding,
    decode_body,
    find_content_type,
    read_credentials,
    read_form,
)

# URL keys that steer the transport; every other key is a setting of the engine.
TRANSPORT_KEYS = frozenset(
    {
        "buffer_size",
        "cancel_http_readonly_queries_on_client_close",
        "client_protocol_version",
        "compress",
        "database",
        "decompress",
        "default_format",
        "enable_http_compression",
        "http_headers_progress_interval_ms",
        "password",
        "query",
        "query_id",
        "quota_key",
        "role",
        "send_progress_in_http_headers",
        "session_check",
        "session_id",
        "session_timeout",
        "stacktrace",
        "user",
        "wait_end_of_query",
    }
)
Outcome = TypeVar("Outcome")
"""What a piece of work done in a query thread returns."""
SERVER_NAME = "quantstream-store"
NOT_FOUND = (
    "There is no handle {path}\n\n"
    "Use / or /ping for health checks.\n"
    "Send queries from your program with POST method or GET /?query=...\n"
)


class HttpLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much the store takes at once: worker threads, waiting requests, bytes of one body."""

    threads: int = 8
    waiting_max: int = 256
    body_bytes_max: int = 256 * 1024 * 1024


class StoreHttp:
    """The request handlers; queries run in a bounded pool of threads, never in the event loop."""

    def __init__(
        self, engine: StoreEngine, credentials: tuple[str, str], limits: HttpLimits | None = None
    ) -> None:
        self._engine = engine
        self._credentials = credentials
        self._limits = limits or HttpLimits()
        self._threads = ThreadPoolExecutor(self._limits.threads, thread_name_prefix="query")
        self._running = 0

    def build_app(self) -> ASGIApp:
        """Return the ASGI application."""
        app = Starlette(
            routes=[
                Route("/ping", _answer_ok, methods=["GET"]),
                Route("/replicas_status", _answer_ok, methods=["GET"]),
                Route("/", self.handle, methods=["GET", "POST"]),
                Route("/{path:path}", _answer_not_found, methods=["GET", "POST", "PUT", "DELETE"]),
            ]
        )

        async def cut_broken_answers(scope: Scope, receive: Receive, send: Send) -> None:
            # Leaving an answer unfinished makes the server cut the connection: the client sees it.
            with suppress(ConnectionAbortedError):
                await app(scope, receive, send)

        return cut_broken_answers

    def close(self) -> None:
        """Wait for running queries and end the threads."""
        self._threads.shutdown(wait=True)

    async def handle(self, request: Request) -> Response:
        """Answer one query as ClickHouse would; failures become its error bodies."""
        url = dict(request.query_params)
        if request.method == "GET" and "query" not in url:
            return _answer_ok(request)
        query_id = url.get("query_id") or str(uuid.uuid4())
        common = {
            "X-ClickHouse-Query-Id": query_id,
            "X-ClickHouse-Server-Display-Name": SERVER_NAME,
            "X-ClickHouse-Timezone": self._engine.timezone,
        }
        try:
            check_credentials(read_credentials(request.headers, url), self._credentials)
            body = await self._read_body(request)
            query, streamable = await self._in_thread(
                partial(self._plan, request.method, url, dict(request.headers), body)
            )
            encoding = None
            if _is_on(url.get("enable_http_compression", "0")):
                encoding = choose_response_encoding(request.headers.get("accept-encoding", ""))
            wait_for_end = _is_on(url.get("wait_end_of_query", "0")) or encoding is not None
            if streamable and not wait_for_end:
                return await self._stream(query, common)
            answer = await self._in_thread(partial(self._engine.execute, query))
            return await self._build_response(answer, encoding, common)
        except StoreError as e:
            headers = {**common, "X-ClickHouse-Exception-Code": str(e.code)}
            if e.status == 401:
                headers["WWW-Authenticate"] = 'Basic realm="ClickHouse server HTTP API"'
            return PlainTextResponse(e.render(self._engine.version), e.status, headers)

    async def _read_body(self, request: Request) -> bytes:
        limit = self._limits.body_bytes_max
        body = bytearray()
        async for chunk in request.stream():
            check_body_size(len(body) + len(chunk), limit)
            body += chunk
        return bytes(body)

    def _plan(
        self, method: str, url: dict[str, str], headers: Mapping[str, str], body: bytes
    ) -> tuple[Query, bool]:
        """Return the query and whether its answer may be sent while it is made."""
        query = self._build_query(method, url, headers, body)
        return query, self._engine.can_stream(query)

    def _build_query(
        self, method: str, url: dict[str, str], headers: Mapping[str, str], body: bytes
    ) -> Query:
        """Join URL, headers and body into one `Query`, as ClickHouse's handler does."""
        encoding = headers.get("content-encoding", "")
        body = decode_body(body, encoding, self._limits.body_bytes_max)
        if _is_on(url.get("compress", "0")) or _is_on(url.get("decompress", "0")):
            msg = (
                "ClickHouse's own block compression is not available in the embedded store; "
                "use enable_http_compression=1 and Content-Encoding"
            )
            raise StoreError(48, "NOT_IMPLEMENTED", msg)
        content_type = headers.get("content-type", "")
        if content_type.startswith("multipart/form-data"):
            url = {**url, **read_form(body, content_type)}
            body = b""
        text = url.get("query", "")
        sql = f"{text}\n".encode() + body if text else body
        session_seconds = url.get("session_timeout", "60")
        if not session_seconds.isdecimal():
            msg = f"Invalid session timeout: {session_seconds!r}"
            raise StoreError(374, "INVALID_SESSION_TIMEOUT", msg)
        return Query(
            sql=sql,
            database=url.get("database") or headers.get("x-clickhouse-database", ""),
            default_format=url.get("default_format")
            or headers.get("x-clickhouse-format")
            or "TabSeparated",
            settings={
                key: value
                for key, value in url.items()
                if key not in TRANSPORT_KEYS and not key.startswith("param_")
            },
            parameters={
                key.removeprefix("param_"): value
                for key, value in url.items()
                if key.startswith("param_")
            },
            readonly=method == "GET",
            session_id=url.get("session_id", ""),
            session_seconds=float(session_seconds),
        )

    async def _in_thread(self, work: Callable[[], Outcome]) -> Outcome:
        if self._running >= self._limits.waiting_max:
            msg = f"Too many simultaneous queries. Maximum: {self._limits.waiting_max}"
            raise StoreError(202, "TOO_MANY_SIMULTANEOUS_QUERIES", msg)
        self._running += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._running -= 1

    async def _build_response(
        self, answer: Answer, encoding: str | None, common: Mapping[str, str]
    ) -> Response:
        headers = {
            **common,
            "X-ClickHouse-Summary": json.dumps(answer.summary, separators=(",", ":")),
        }
        body = answer.body
        if encoding is not None and body:
            body = await self._in_thread(partial(RESPONSE_ENCODERS[encoding], body))
            headers["Content-Encoding"] = encoding
        content_type = "text/plain; charset=UTF-8"
        if answer.output_format is not None:
            headers["X-ClickHouse-Format"] = answer.output_format
            content_type = find_content_type(answer.output_format)
        headers["Content-Type"] = content_type
        return Response(body, 200, headers)

    async def _stream(self, query: Query, common: Mapping[str, str]) -> Response:
        """Send rows as the engine makes them, so that a large answer is never held in memory."""
        context = self._engine.stream(query)
        output_format, pieces = await self._in_thread(partial(_enter, context))
        headers = {
            **common,
            "X-ClickHouse-Format": output_format,
            "Content-Type": find_content_type(output_format),
        }
        return StreamingResponse(self._send_pieces(context, pieces), 200, headers)

    async def _send_pieces(
        self,
        context: AbstractContextManager[tuple[str, Iterator[bytes]]],
        pieces: Iterator[bytes],
    ) -> AsyncIterator[bytes]:
        """Yield pieces; a failure midway is written into the body and cuts the connection."""
        try:
            while True:
                piece = await self._in_thread(partial(_next_piece, pieces))
                if piece is None:
                    return
                yield piece
        except StoreError as e:
            yield e.render(self._engine.version).encode()
            msg = "answer broke off midway"
            raise ConnectionAbortedError(msg) from e
        finally:
            self._threads.submit(context.__exit__, None, None, None)


def _enter(
    context: AbstractContextManager[tuple[str, Iterator[bytes]]],
) -> tuple[str, Iterator[bytes]]:
    return context.__enter__()


def _next_piece(pieces: Iterator[bytes]) -> bytes | None:
    return next(pieces, None)


def _is_on(text: str) -> bool:
    return text.lower() in {"1", "true"}


def _answer_ok(_request: Request) -> Response:
    return PlainTextResponse("Ok.\n", media_type="text/html; charset=UTF-8")


def _answer_not_found(request: Request) -> Response:
    return PlainTextResponse(NOT_FOUND.format(path=request.url.path), 404)
