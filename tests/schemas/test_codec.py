import hashlib
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import (
    Origin,
    build_headers,
    contract_hash,
    decode,
    encode,
    find_header,
    schema_header,
)
from schemas.market import BarClosed
from schemas.trading import PositionChanged
from tests.contracts.samples import samples

AMOUNTS = st.decimals(min_value=-(10**20), max_value=10**20, places=12)
POSITION = next(each for each in samples() if isinstance(each, PositionChanged))


@pytest.mark.parametrize("message", samples(), ids=lambda each: type(each).__name__)
def test_every_message_survives_its_bytes(message):
    assert decode(type(message), encode(message)) == message


@given(AMOUNTS)
def test_no_digit_of_an_amount_is_lost(amount):
    message = msgspec.structs.replace(POSITION, cash=amount)
    assert decode(PositionChanged, encode(message)).cash == amount


def test_amounts_travel_as_text():
    assert isinstance(msgspec.json.decode(encode(POSITION))["cash"], str)


@pytest.mark.parametrize("value", [b"", b"null", b"[]", b'{"id":', b'{"id":"x"}', b"\xff\xfe"])
def test_bytes_that_are_no_message_are_refused(value):
    with pytest.raises(ValueError):  # noqa: PT011
        decode(BarClosed, value)


def test_schema_header_names_class_version_and_hash():
    name, version, digest = schema_header(BarClosed).decode().split(";")
    text = msgspec.json.encode(msgspec.json.schema(BarClosed), order="deterministic")
    assert (name, version) == ("BarClosed", "1")
    assert digest == contract_hash(BarClosed) == hashlib.sha256(text).hexdigest()[:12]


def test_contract_hashes_tell_the_messages_apart():
    classes = [type(each) for each in samples()]
    assert len({contract_hash(each) for each in classes}) == len(classes)


def test_headers_carry_identity_cause_origin_and_provenance():
    headers = build_headers(
        BarClosed, "bar/1", "tick/2", "recorded", Origin(config_hash="abc", epoch=7)
    )
    found = {name: value.decode() for name, value in headers}
    assert found.pop("schema").startswith("BarClosed;1;")
    assert found == {
        "id": "bar/1",
        "cause": "tick/2",
        "config": "abc",
        "epoch": "7",
        "provenance": "recorded",
    }


def test_first_header_of_a_name_counts_and_a_missing_one_is_none():
    headers = [("a", None), ("a", b"first"), ("a", b"second")]
    assert find_header(headers, "a") == "first"
    assert find_header(headers, "b") is None
    assert find_header(None, "a") is None


def test_zero_and_tiny_amounts_keep_their_exponent():
    message = msgspec.structs.replace(POSITION, cash=Decimal("1E-12"), equity=Decimal("0E-12"))
    again = decode(PositionChanged, encode(message))
    assert (again.cash, again.equity) == (Decimal("0.000000000001"), Decimal(0))
