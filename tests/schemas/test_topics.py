import pytest

from schemas.fields import Provenance, worst_provenance
from schemas.ids import bar_id, client_order_id, derive_id, features_id, tick_id
from schemas.instruments import InstrumentBook
from schemas.market import InstrumentListed
from schemas.topics import TOPICS, full_name, message_topics, record_key
from tests.contracts.samples import samples

LISTED = next(each for each in samples() if isinstance(each, InstrumentListed))


def listing(**changes):
    return InstrumentListed(**{f: getattr(LISTED, f) for f in LISTED.__struct_fields__} | changes)


def test_every_message_belongs_to_exactly_one_topic():
    found = [topic.message for topic in message_topics()]
    assert len(set(found)) == len(found) == len(TOPICS) - 1
    assert all(TOPICS[message.topic].message is message for message in found)


@pytest.mark.parametrize("topic", message_topics(), ids=lambda each: each.name)
def test_keys_are_fields_of_the_message(topic):
    fields = set(topic.message.__struct_fields__)
    assert set(topic.key) <= fields
    assert set(topic.message.natural_key) <= fields
    assert {"id", "cause"} <= fields


def test_topics_that_lanes_write_are_partitioned_like_the_ticks():
    for topic in TOPICS.values():
        symbols = topic.key == ("venue", "symbol") and not topic.compacted
        assert topic.partitioned == (symbols or topic.name == "model.events")


def test_names_are_prefixed_by_the_environment():
    assert full_name("paper", "trade.fills") == "paper.trade.fills"
    with pytest.raises(KeyError):
        full_name("paper", "trade.unknown")


def test_record_keys_join_the_key_fields():
    keys = {type(each).topic: record_key(each) for each in samples() if hasattr(each, "id")}
    assert keys["market.bars"] == "binance_spot:BTCUSDT"
    assert keys["trade.fills"] == "paper"
    assert keys["ops.dead_letters"] == "market.ticks"


def test_ids_are_functions_that_tell_their_parts_apart():
    assert derive_id("s", "a", 1, 0, "p") == derive_id("s", "a", 1, 0, "p")
    assert (
        len(
            {
                derive_id("s", "a", 11, 0, "p"),
                derive_id("s", "a", 1, 10, "p"),
                derive_id("sa", "", 11, 0, "p"),
            }
        )
        == 3
    )
    assert bar_id("v", "S", "5m", 3) == "bar/v/S/5m/3"
    assert features_id("v", "S", "5m", 3) == "features/v/S/5m/3"
    assert tick_id(1, 2, 3) == "tick/1/2/3"


def test_client_order_ids_fit_a_venue():
    found = client_order_id("f" * 64)
    assert len(found) == 36
    assert found.isalnum()


def test_the_least_trustworthy_provenance_wins():
    assert worst_provenance({Provenance.LIVE, Provenance.RECONSTRUCTED}) == "reconstructed"
    assert worst_provenance({Provenance.LIVE}) == "live"
    assert worst_provenance(set()) == "synthetic"


def test_newest_listing_of_an_instrument_counts():
    book = InstrumentBook([LISTED])
    newer = listing(valid_from_ns=LISTED.valid_from_ns + 1, price_decimals=3)
    older = listing(valid_from_ns=LISTED.valid_from_ns - 1, price_decimals=9)
    assert book.add(newer) == book.add(older) == book.number_of("binance_spot", "BTCUSDT") == 0
    assert book[0] is newer
    assert book.frame["price_scale"].to_list() == [1000.0]
    assert book.number_of("binance_spot", "ETHUSDT") is None
    assert book.add(listing(symbol="ETHUSDT")) == 1
    assert len(book) == book.frame.height == 2
