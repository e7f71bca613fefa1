"""The compiled reader agrees with the decoder of single lines, or leaves the line to it."""

import json

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from infra.tick_encoder import encode_heartbeat
from infra.tick_lines import parse_lines
from infra.tick_scan import scan_lines
from schemas.ticks import LINE_BYTES_MAX
from tests.infra.tick_records import NOW_NS, PADDING, line, quote, raw, ticks_of


def scan(values):
    ends = np.cumsum([len(value) + 1 for value in values])
    return scan_lines(b"\n".join([*values, b""]), ends)


def told_apart(text):
    """Return the same tick with a field that the compiled reader does not know."""
    return text.replace(b"{", b'{"note": 1, ', 1)


def outcome(text):
    parsed = parse_lines([text])
    return ticks_of(parsed.ticks), [(each.line, each.reason) for each in parsed.refused]


def agree(text):
    """Check that a line which the compiled reader takes says the same to the decoder of single lines."""
    if scan([text]).doubtful.size:
        return
    assert scan([told_apart(text)]).doubtful.size
    assert outcome(text) == outcome(told_apart(text))


NUMBERS = st.from_regex(r"-?[0-9]{1,21}(\.[0-9]{0,21})?([eE][+-]?[0-9]{0,3})?", fullmatch=True)


@settings(max_examples=300)
@given(NUMBERS, st.sampled_from(["price", "ask_size", "trade_id", "event_time_ns"]))
@example("9007199254740993", "price")
@example("1730690449589990.29", "price")
@example("9223372036854775807", "trade_id")
@example("9223372036854775808", "trade_id")
@example("18446744073709551616", "event_time_ns")
@example("1.7976931348623157e308", "price")
@example("123456789012345.6e-22", "price")
@example("5e0", "trade_id")
@example("0", "trade_id")
@example("00", "trade_id")
@example("0.", "price")
@example("1e", "price")
def test_a_number_is_read_alike_by_both_ways(text, name):
    agree(raw(name, text.encode()))


@settings(max_examples=200)
@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False))
def test_a_float_that_python_writes_comes_back_bit_for_bit(value):
    agree(line(price=value))
    (tick,) = ticks_of(parse_lines([line(price=value)]).ticks)
    assert tick["price"] == value


@settings(max_examples=200)
@given(
    st.dictionaries(
        st.sampled_from(
            ["kind", "event_time_ns", "venue", "symbol", "price", "side", "trade_id", "bid", "x"]
        ),
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(-9, 2**64),
            st.text(max_size=4),
            st.sampled_from(["buy", "trade"]),
        ),
    ),
    st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", " :\r")]),
    st.booleans(),
)
def test_any_object_is_read_alike_by_both_ways(fields, separators, ascii_only):
    text = json.dumps(
        {"kind": "quote", "event_time_ns": NOW_NS} | fields,
        separators=separators,
        ensure_ascii=ascii_only,
    )
    agree(text.encode())
    assert (
        len(parse_lines([text.encode()]).records) + len(parse_lines([text.encode()]).refused) == 1
    )


@settings(max_examples=300)
@given(st.data())
def test_a_changed_byte_is_read_alike_by_both_ways(data):
    text = bytearray(
        data.draw(
            st.sampled_from(
                [line(side="buy", trade_id=7), quote(bid_size=None), encode_heartbeat(NOW_NS)]
            )
        )
    )
    place = data.draw(st.integers(1, len(text) - 1))
    text[place] = data.draw(st.sampled_from(b'{}[]",:\\ \t\r\x00\x7f\xff0.eE-n1'))
    agree(bytes(text))


def test_plain_records_take_the_compiled_way():
    values = [b"\n".join(PADDING), quote(bid_size=1.5), encode_heartbeat(NOW_NS), line(side=None)]
    assert not scan([*values, b" \r\n" + line(side="sell") + b" \t\r\n\n"]).doubtful.size


def test_every_line_is_plain_or_doubtful_and_numbered_within_its_record():
    values = [b"\n" + line() + b"\nbad\n \n" + line(), b"", b"{}\n" + quote()]
    found = scan(values)
    assert list(zip(found.records.tolist(), found.lines.tolist(), strict=True)) == [
        (0, 0),
        (0, 2),
        (2, 1),
    ]
    assert found.doubtful[:, :2].tolist() == [[0, 1], [2, 0]]
    assert found.counts.tolist() == [3, 0, 2]


def test_a_line_at_the_limit_is_left_to_the_decoder_beyond_it():
    padded = line().replace(b" ", b" " * (LINE_BYTES_MAX - len(line()) + 1), 1)
    assert len(padded) == LINE_BYTES_MAX
    assert not scan([padded]).doubtful.size
    assert scan([padded.replace(b" ", b"  ", 1)]).doubtful.size


def test_more_names_than_are_remembered_are_still_ticks():
    names = [f"S{number}" for number in range(70_000)]
    value = b"\n".join(line(symbol=name) for name in names)
    parsed = parse_lines([value])
    assert scan([value]).doubtful.size
    assert [tick["symbol"] for tick in ticks_of(parsed.ticks)] == names
    assert parsed.refused == []
