import gzip
import json
import subprocess
from typing import NamedTuple

import lz4.frame
import pytest
import zstandard

from infra.stack.store_wire import choose_response_encoding, find_content_type, read_form

pytestmark = pytest.mark.stack


class CurlAnswer(NamedTuple):
    status: int
    headers: dict
    body: bytes


@pytest.fixture
def curl(store, database):
    """Run curl against the store, with the right user unless told otherwise."""

    def run(query="", *options, stdin=None, user="quantstream:secret", url=None, path="/"):
        address = store.url + path
        keys = {"database": database, **(url or {})}
        if query:
            keys["query"] = query
        encoded = [
            part for key, value in keys.items() for part in ("--url-query", f"{key}={value}")
        ]
        command = ["curl", "--silent", "--dump-header", "-", "--user", user, *options]
        done = subprocess.run([*command, *encoded, address], input=stdin, capture_output=True)
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        while body.startswith(b"HTTP/"):
            head, _, body = body.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in lines)}
        return CurlAnswer(int(first.split()[1]), headers, body)

    return run


POST = ("--request", "POST")
BODY = ("--data-binary", "@-")


@pytest.mark.parametrize("path", ["/", "/ping", "/replicas_status"])
def test_health_needs_no_password(curl, path):
    answer = curl(path=path, user="nobody:nothing")
    assert (answer.status, answer.body) == (200, b"Ok.\n")


def test_query_in_the_url_answers_tab_separated(curl):
    answer = curl("SELECT 1, 'a'")
    assert (answer.status, answer.body) == (200, b"1\ta\n")
    assert answer.headers["x-clickhouse-format"] == "TabSeparated"
    assert answer.headers["x-clickhouse-timezone"] == "UTC"
    assert answer.headers["content-type"].startswith("text/tab-separated-values")


@pytest.mark.parametrize(
    ("query", "part"),
    [
        ("SHOW DATABASES", b"system\n"),
        ("EXISTS TABLE system.one", b"1\n"),
        ("DESCRIBE TABLE system.one", b"dummy\tUInt8"),
        ("EXPLAIN SELECT 1", b"ReadFromSystemOne"),
        ("SHOW CREATE DATABASE system", b"CREATE DATABASE system"),
        ("WITH 1 AS a SELECT a UNION ALL SELECT 2", b"2\n"),
        ("(SELECT 3)", b"3\n"),
    ],
)
def test_every_reading_statement_answers(curl, query, part):
    answer = curl(query)
    assert answer.status == 200, answer.body
    assert part in answer.body


def test_query_in_the_body_with_a_summary(curl):
    answer = curl("", *BODY, stdin=b"SELECT number FROM numbers(5) FORMAT JSONCompact")
    assert json.loads(answer.body)["data"] == [[n] for n in range(5)]
    assert json.loads(answer.headers["x-clickhouse-summary"])["read_rows"] == "5"
    assert answer.headers["content-type"].startswith("application/json")


def test_query_id_comes_back(curl):
    assert curl("SELECT 1", url={"query_id": "mine"}).headers["x-clickhouse-query-id"] == "mine"


def test_get_refuses_to_write(curl):
    answer = curl("CREATE TABLE t (a Int8) ENGINE = Memory")
    assert (answer.status, answer.headers["x-clickhouse-exception-code"]) == (500, "164")
    assert b"method GET implies readonly" in answer.body
    assert curl("EXISTS TABLE t").body == b"0\n"
    assert curl("CREATE TABLE t (a Int8) ENGINE = Memory", url={"readonly": "0"}).status == 500


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("gzip", gzip.compress),
        ("zstd", zstandard.compress),
        ("lz4", lz4.frame.compress),
        ("identity", bytes),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_insert_body_with_the_statement_in_the_url(curl, encoding, compress, chunked):
    curl("CREATE TABLE t (a Int32, b String) ENGINE = MergeTree ORDER BY a", *POST)
    options = ["--header", f"Content-Encoding: {encoding}"]
    if chunked:
        options += ["--header", "Transfer-Encoding: chunked"]
    answer = curl("INSERT INTO t FORMAT CSV", *BODY, *options, stdin=compress(b"1,x\n2,y\n"))
    assert answer.status == 200, answer.body
    assert json.loads(answer.headers["x-clickhouse-summary"])["written_rows"] == "2"
    assert curl("SELECT * FROM t ORDER BY a").body == b"1\tx\n2\ty\n"


def test_damaged_compression_is_refused(curl):
    answer = curl("SELECT 1", *BODY, "--header", "Content-Encoding: gzip", stdin=b"not gzip")
    assert answer.status == 400
    assert curl("SELECT 1", *BODY, "--header", "Content-Encoding: x", stdin=b"?").status == 501


@pytest.mark.parametrize(
    ("encoding", "decompress"),
    [
        ("gzip", gzip.decompress),
        ("zstd", lambda body: zstandard.ZstdDecompressor().decompressobj().decompress(body)),
        ("lz4", lz4.frame.decompress),
    ],
)
def test_answer_is_compressed_when_asked(curl, encoding, decompress):
    accept = ("--header", f"Accept-Encoding: {encoding}")
    sql = "SELECT number FROM numbers(1000)"
    plain = curl(sql, *accept)
    packed = curl(sql, *accept, url={"enable_http_compression": "1"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == encoding
    assert decompress(packed.body) == plain.body


@pytest.mark.parametrize(
    ("query", "status", "code", "symbol"),
    [
        ("SELECT * FROM absent", 404, "60", "UNKNOWN_TABLE"),
        ("SELEC", 400, "62", "SYNTAX_ERROR"),
        ("SELECT 1; SELECT 2", 400, "62", "SYNTAX_ERROR"),
        ("SELECT toUInt8('a')", 400, "6", "CANNOT_PARSE_TEXT"),
        ("SELECT throwIf(1)", 500, "395", "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"),
    ],
)
def test_errors_read_as_from_a_server(curl, query, status, code, symbol):
    answer = curl(query)
    assert answer.status == status
    assert answer.headers["x-clickhouse-exception-code"] == code
    assert answer.body.startswith(f"Code: {code}. DB::Exception: ".encode())
    assert f"({symbol}) (version 26.".encode() in answer.body


def test_unknown_setting_and_database_are_not_found(curl):
    assert curl("SELECT 1", url={"max_thread": "1"}).headers["x-clickhouse-exception-code"] == "115"
    assert (
        curl("SELECT 1", url={"database": "absent"}).headers["x-clickhouse-exception-code"] == "81"
    )
    assert curl("SELECT 1", url={"a-b": "1"}).status == 404


def test_user_and_password_in_every_place(curl):
    none = ("--header", "Authorization:")
    key = ("--header", "X-ClickHouse-User: quantstream", "--header", "X-ClickHouse-Key: secret")
    assert curl("SELECT 1", *none, *key).status == 200
    url = {"user": "quantstream", "password": "secret"}
    assert curl("SELECT 1", *none, url=url).status == 200
    for refused in (
        curl("SELECT 1", *none),
        curl("SELECT 1", user="quantstream:guess"),
        curl("SELECT 1", *none, url={**url, "password": ""}),
        curl("SELECT 1", "--header", "Authorization: Basic ???"),
    ):
        assert refused.status == 403
        assert refused.headers["x-clickhouse-exception-code"] == "516"
        assert b"AUTHENTICATION_FAILED" in refused.body


def test_parameters_and_default_format(curl):
    answer = curl("SELECT {a:String} AS a", url={"param_a": "x", "default_format": "JSONEachRow"})
    assert answer.body == b'{"a":"x"}\n'


def test_form_fields_are_read(curl):
    answer = curl("", "--form-string", "query=SELECT {a:Int8} + 1", "--form-string", "param_a=4")
    assert answer.body == b"5\n"


def test_failure_after_the_first_rows_cuts_the_connection(store, curl):
    sql = "SELECT throwIf(number = 900000) FROM numbers(1000000)"
    done = subprocess.run(
        ["curl", "--silent", "--user", "quantstream:secret", "--data", sql, store.url],
        capture_output=True,
    )
    assert done.returncode != 0
    assert b"Code: 395. DB::Exception" in done.stdout


def test_unknown_paths_are_not_found(curl):
    assert curl(path="/play").status == 404


def test_content_type_follows_the_format():
    assert find_content_type("RowBinaryWithNames") == "application/octet-stream"
    assert find_content_type("JSONStrings") == "application/json; charset=UTF-8"
    assert find_content_type("Pretty") == "text/plain; charset=UTF-8"


def test_encoding_is_chosen_among_ours():
    assert choose_response_encoding("br, gzip;q=0.5, zstd") == "zstd"
    assert choose_response_encoding("br") is None


def test_form_with_a_file_is_refused():
    body = (
        b'--b\r\nContent-Disposition: form-data; name="t"; filename="t.csv"\r\n\r\n1\r\n--b--\r\n'
    )
    with pytest.raises(Exception, match="External tables"):
        read_form(body, "multipart/form-data; boundary=b")
