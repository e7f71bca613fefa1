import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.stack.store_errors import StoreError, read_engine_error
from infra.stack.store_sql import parse_statement


@pytest.mark.parametrize(
    ("sql", "kind", "output_format"),
    [
        (b"SELECT 1", "read", None),
        (b"select 1 format JSONCompact;", "read", "JSONCompact"),
        (b"SELECT format FROM t", "read", None),
        (b"SELECT 'FORMAT CSV'", "read", None),
        (b"SELECT (SELECT 1) FORMAT CSV SETTINGS max_threads=1", "read", "CSV"),
        (b"/* INSERT */ -- x\n WITH 1 AS a SELECT a", "read", None),
        (b"SHOW TABLES", "read", None),
        (b"CREATE TABLE t (a Int8) ENGINE = Memory", "command", None),
        (b"CREATE TEMPORARY TABLE t (a Int8)", "session", None),
        (b"SET max_threads = 1", "session", None),
        (b"INSERT INTO t SELECT 1", "command", None),
        (b"INSERT INTO t (a) (SELECT 1)", "command", None),
    ],
)
def test_statement_is_classified(sql, kind, output_format):
    statement = parse_statement(sql)
    assert (statement.kind, statement.output_format) == (kind, output_format)


@pytest.mark.parametrize(
    ("sql", "input_format", "head", "rows"),
    [
        (b"INSERT INTO t VALUES (1)", "Values", b"INSERT INTO t ", b" (1)"),
        (b"insert into t (a) format CSV\n1\n", "CSV", b"insert into t (a) ", b"1\n"),
        (b"INSERT INTO t FORMAT RowBinary\n\n\x00", "RowBinary", b"INSERT INTO t ", b"\n\x00"),
        (b"INSERT INTO `values` FORMAT TSV\r\n1", "TSV", b"INSERT INTO `values` ", b"1"),
        (b"INSERT INTO format FORMAT TSV 1", "TSV", b"INSERT INTO format ", b"1"),
        (b"INSERT INTO t SETTINGS a=1 FORMAT TSV\n1", "TSV", b"INSERT INTO t SETTINGS a=1 ", b"1"),
    ],
)
def test_inline_rows_are_found(sql, input_format, head, rows):
    statement = parse_statement(sql)
    assert statement.kind == "insert"
    assert statement.input_format == input_format
    assert statement.head == head
    assert sql[statement.rows_start :] == rows


@given(st.binary(max_size=200))
def test_rows_are_never_read_as_sql(rows):
    sql = b"INSERT INTO t FORMAT RowBinary\n" + rows
    assert sql[parse_statement(sql).rows_start :] == rows


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        (b"", 62),
        (b" -- nothing\n", 62),
        (b"SELECT 1; SELECT 2", 62),
        (b"INSERT INTO t SELECT 1; DROP TABLE t", 62),
        (b"CREATE TABLE t (a Int8) ENGINE = Kafka SETTINGS x=1", 344),
        (b"create table t (a Int8) engine=`Kafka`('b')", 344),
        (b"ATTACH TABLE t (a Int8) ENGINE /* = Log */ KAFKA", 344),
        (b"SELECT 1 INTO OUTFILE 'x'", 344),
        (b"INSERT INTO t FROM INFILE 'x' FORMAT CSV", 344),
        (b"SYSTEM SHUTDOWN", 344),
    ],
)
def test_unsafe_texts_are_refused(sql, code):
    with pytest.raises(StoreError) as caught:
        parse_statement(sql)
    assert caught.value.code == code


def test_marks_inside_strings_do_not_count():
    assert parse_statement(b"SELECT ';', 'ENGINE = Kafka', \"a;b\", `c;d` -- ;\n").kind == "read"


def test_nested_engine_error_is_told_once():
    raw = (
        "Code: 27. DB::Exception: Code: 27. DB::Exception: Cannot parse input: (at row 2)\n: "
        "(in file/uri /secret/place.rows): While executing File: data for INSERT was parsed "
        "from file. (CANNOT_PARSE_INPUT_ASSERTION_FAILED) (version 26.9.2.1). "
        "(CANNOT_PARSE_INPUT_ASSERTION_FAILED)"
    )
    error = read_engine_error(raw)
    assert (error.code, error.name, error.status) == (
        27,
        "CANNOT_PARSE_INPUT_ASSERTION_FAILED",
        400,
    )
    rendered = error.render("26.9")
    assert rendered.count("DB::Exception") == 1
    assert rendered.count("CANNOT_PARSE") == 1
    assert "/secret" not in rendered


def test_text_without_a_code_is_still_an_error():
    assert read_engine_error("out of luck").code == 1001
