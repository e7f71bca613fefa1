import re
from pathlib import Path

import msgspec
import pytest
from msgspec import Struct

from schemas.ddl import (
    LOG_COLUMNS,
    LOG_FRAME,
    TICK_COLUMNS,
    TICK_KEY,
    clickhouse_columns,
    clickhouse_ddl,
    partitioning_time,
    ticks_ddl,
    time_columns,
)
from schemas.descriptions import COMMON_FIELDS, LOG_FIELDS, TICK_FIELDS
from schemas.dictionary import field_docs, render_dictionary
from schemas.exports import contract_classes, main, render_all, render_json_schema
from schemas.market import BarClosed, FeaturesComputed
from schemas.operations import DeadLetterRecorded
from schemas.signals import SignalEmitted, Vote
from schemas.ticks import TickLine
from schemas.topics import TOPICS, message_topics
from schemas.trading import CheckMeasured, OrderFilled, OrderUpdated

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
MESSAGES = [topic.message for topic in message_topics()]


@pytest.mark.parametrize("name", sorted(render_all()))
def test_committed_reference_is_what_the_contracts_render(name):
    assert (REFERENCE / name).read_text() == render_all()[name], "run python -m schemas.exports"


def test_exports_are_written_to_the_given_folder(tmp_path, capsys):
    assert main(["--out", str(tmp_path)]) == 0
    found = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert found == set(render_all())
    assert str(len(found)) in capsys.readouterr().out


def test_columns_have_the_types_of_the_rules():
    bar, fill = clickhouse_columns(BarClosed), clickhouse_columns(OrderFilled)
    time = "DateTime64(9, 'UTC')"
    assert bar["close_time_ns"] == time
    assert bar["symbol"] == bar["provenance"] == "LowCardinality(String)"
    assert bar["buy_volume"] == "Nullable(Float64)"
    assert bar["id"] == "String"
    assert fill["price"] == "Decimal(38, 12)"
    assert clickhouse_columns(OrderUpdated)["stop_price"] == "Nullable(Decimal(38, 12))"
    assert clickhouse_columns(OrderUpdated)["reduce_only"] == "Bool"
    assert clickhouse_columns(FeaturesComputed)["vector"] == "Array(Nullable(Float64))"
    assert clickhouse_columns(FeaturesComputed)["missing_mask"] == "UInt64"
    votes = clickhouse_columns(SignalEmitted)["votes"]
    assert votes.startswith("Array(Tuple(voter LowCardinality(String), ")
    assert "probability_buy Nullable(Float64)" in votes
    assert list(bar)[-len(LOG_COLUMNS) :] == list(LOG_COLUMNS) == LOG_FRAME.names()


@pytest.mark.parametrize("message", MESSAGES, ids=lambda each: each.__name__)
def test_tables_replace_by_natural_key_and_partition_by_event_time(message):
    ddl = clickhouse_ddl(message)
    assert "ENGINE = ReplacingMergeTree(_version)" in ddl
    assert f"ORDER BY ({', '.join(message.natural_key)})" in ddl
    time = partitioning_time(message)
    assert (f"PARTITION BY toYYYYMM({time})" in ddl) == (time is not None)
    assert time is None or time in time_columns(message)


def test_a_message_without_event_time_is_not_partitioned():
    assert partitioning_time(DeadLetterRecorded) is None
    assert "PARTITION BY" not in clickhouse_ddl(DeadLetterRecorded)


def test_retention_of_ticks_counts_from_reading():
    assert "TTL toDateTime(_ingest_ns) + INTERVAL 30 DAY" in ticks_ddl()
    assert set(TICK_KEY) >= {"partition", "offset", "line"}


class Strange(Struct):
    found: dict[str, int]


def test_a_type_without_a_rule_is_named():
    with pytest.raises(TypeError, match=r"field 'found' has type .*; tables know no rule for it"):
        clickhouse_columns(Strange)


@pytest.mark.parametrize(
    "message", [*MESSAGES, Vote, CheckMeasured], ids=lambda each: each.__name__
)
def test_every_field_is_described(message):
    assert [name for name, text in field_docs(message).items() if not text] == []


def test_descriptions_are_of_fields_that_exist():
    fields = {
        field for each in [*MESSAGES, Vote, CheckMeasured] for field in each.__struct_fields__
    }
    assert set(COMMON_FIELDS) <= fields
    assert set(TICK_FIELDS) == set(TickLine.__struct_fields__)
    assert set(LOG_FIELDS) == set(LOG_COLUMNS)


def test_a_docstring_of_a_field_wins_over_the_common_description():
    assert field_docs(BarClosed)["gap_bars"].startswith("Intervals without a trade")


def test_dictionary_names_every_topic_field_and_column():
    page = render_dictionary()
    assert all(f"## {name}" in page for name in TOPICS)
    assert all(f"| `{field}` |" in page for each in MESSAGES for field in each.__struct_fields__)
    assert all(f"| `{column}` |" in page for column in [*TICK_COLUMNS, *LOG_COLUMNS])


def test_dictionary_shows_a_tick_that_any_language_can_send():
    page = render_dictionary()
    assert "-X partitioner=murmur2_random" in page
    line = re.search(r"printf '%s\\n' '[^\t]+\t(\{.*\})'", page)
    tick = msgspec.json.decode(line[1], type=TickLine)
    assert (tick.kind, tick.venue, tick.symbol) == ("trade", "binance_spot", "BTCUSDT")


@pytest.mark.parametrize("message", contract_classes(), ids=lambda each: each.__name__)
def test_json_schema_names_its_contract(message):
    schema = msgspec.json.decode(render_json_schema(message))
    assert schema["$comment"].startswith(f"{message.__name__};1;")
    assert message.__name__ in schema["$defs"]
