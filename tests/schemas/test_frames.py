import polars as pl
import pytest
from msgspec import Struct

from schemas.codec import decode
from schemas.exports import contract_classes
from schemas.frames import encode_rows, polars_schema, to_frame, to_messages
from schemas.market import BarClosed, FeaturesComputed
from schemas.signals import SignalEmitted
from schemas.trading import DecisionMade
from tests.contracts.samples import closed_leg, samples

MESSAGES = [each for each in samples() if type(each).__name__ != "TickLine"]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda each: type(each).__name__)
def test_every_message_survives_a_frame(message):
    frame = to_frame(type(message), [message, message])
    assert frame.schema == polars_schema(type(message))
    assert to_messages(type(message), frame) == [message, message]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda each: type(each).__name__)
def test_rows_of_a_frame_are_the_messages_bytes(message):
    rows = encode_rows(to_frame(type(message), [message, message]))
    assert [decode(type(message), row) for row in rows] == [message, message]


@pytest.mark.parametrize("message", contract_classes()[1:], ids=lambda each: each.__name__)
def test_an_empty_frame_has_the_messages_schema(message):
    assert to_frame(message, []).schema == polars_schema(message)
    assert encode_rows(to_frame(message, [])) == []


def test_columns_have_the_types_of_the_contract():
    assert polars_schema(BarClosed)["close_time_ns"] == pl.Int64()
    assert polars_schema(BarClosed)["buy_volume"] == pl.Float64()
    assert polars_schema(FeaturesComputed)["missing_mask"] == pl.UInt64()
    assert polars_schema(FeaturesComputed)["vector"] == pl.List(pl.Float64())
    assert polars_schema(DecisionMade)["equity"] == pl.Decimal(38, 12)
    votes = polars_schema(SignalEmitted)["votes"]
    assert dict(votes.inner.to_schema())["probability_buy"] == pl.Float64()


def test_line_feeds_and_quotes_in_text_stay_inside_their_row():
    leg = [each for each in closed_leg() if isinstance(each, DecisionMade)]
    told = [
        DecisionMade(
            **{f: getattr(leg[0], f) for f in leg[0].__struct_fields__}
            | {"justification": 'a\nb\r"c"\u2028d'}
        )
    ]
    rows = encode_rows(to_frame(DecisionMade, told))
    assert [decode(DecisionMade, row) for row in rows] == told


class Strange(Struct):
    found: dict[str, int]


def test_a_type_without_a_rule_is_named():
    with pytest.raises(TypeError, match=r"field 'found' has type .*; frames know no rule for it"):
        polars_schema(Strange)
