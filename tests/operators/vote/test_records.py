import numpy as np
import pytest

from operators.vote import PanelRule, count_mix
from operators.vote.agreement import find_stances
from operators.vote.records import build_opinions
from schemas.codec import decode, encode
from schemas.frames import encode_rows, polars_schema, to_messages
from schemas.ids import derive_id
from schemas.opinions import OpinionPooled
from tests.operators.vote.markets import (
    build_panel,
    constant,
    count_mixes,
    knowing,
    make_market,
    run,
    silent,
)

NAMES = ["good", "constant", "silent"]
WORDS = {"sell": 0, "hold": 1, "buy": 2, "abstain": -1}


def pooled_frame(closes=40, symbols=5):
    market = make_market(closes, symbols, seed=31)
    said = np.stack([knowing(market), constant(market), silent(market)], axis=1)
    said[12, 0] = 0.9
    panel = build_panel(NAMES, trusted=NAMES)
    market.volatilities[7] = np.nan
    opinion = run(panel, market, said)
    threshold_bps = PanelRule().costs.threshold_bps
    provenances = ["recorded"] * len(market.keys)
    built = build_opinions(
        market.keys, "1h", market.times_ns, provenances, NAMES, said, opinion, threshold_bps
    )
    return panel, opinion, said, built


def opinions():
    panel, opinion, said, frame = pooled_frame()
    return panel, opinion, said, to_messages(OpinionPooled, frame)


def test_a_record_says_what_was_said():
    _, opinion, said, built = opinions()
    one = built[11]
    assert one.voters == NAMES
    counted = opinion.counted[11]
    sells, buys = (counted[:2, place].tolist() for place in (0, 2))
    assert one.sell == [*(pytest.approx(each, abs=5e-5) for each in sells), None]
    assert one.buy == [*(pytest.approx(each, abs=5e-5) for each in buys), None]
    for place in range(2):
        # Adding the tilt to what counted gives what was said.
        odds = np.log(one.buy[place] / one.sell[place]) + one.tilts[place]
        assert odds == pytest.approx(np.log(said[11, place, 2] / said[11, place, 0]), abs=2e-3)
    assert one.tilts[1:] == [pytest.approx(opinion.tilts[11, 1], abs=5e-5), None]
    assert one.raw_stances[1:] == one.stances[1:] == ["buy", "abstain"]
    assert sum(one.weights) == pytest.approx(1.0, abs=2e-4)
    assert one.pooled_buy == pytest.approx(opinion.probabilities[11, 2], abs=5e-5)
    assert one.cause.startswith("features/")
    assert one.bar_id.startswith("bar/")
    assert (built[12].sell[0], built[12].stances[0]) == (None, "abstain")


def test_an_edge_that_is_unknown_is_null():
    _, _, _, built = opinions()
    assert built[7].edge_bps is None
    assert built[7].decided_stance == "hold"
    assert built[8].edge_bps is not None


def test_records_survive_their_bytes_and_are_small():
    _, _, _, built = opinions()
    assert all(decode(OpinionPooled, encode(one)) == one for one in built)
    assert max(len(encode(one)) for one in built) < 1000
    assert len({one.id for one in built}) == len(built)


def test_rows_have_the_schema_of_their_messages_and_their_bytes():
    frame = pooled_frame()[3]
    assert frame.schema == polars_schema(OpinionPooled)
    assert [decode(OpinionPooled, row) for row in encode_rows(frame)] == opinions()[3]


def test_an_id_follows_from_the_feature_vector():
    one = opinions()[3][0]
    market = f"{one.venue}:{one.symbol}"
    assert one.id == derive_id("model.opinions", market, one.event_time_ns, 0, one.cause)


def test_the_mix_of_records_is_that_of_the_opinions():
    _, opinion, said, built = opinions()
    expected = count_mixes(NAMES, said, opinion)
    for place, name in enumerate(NAMES):
        stances = np.array([WORDS[one.raw_stances[place]] for one in built])
        assert count_mix(name, stances) == expected[place]
    counted = find_stances(opinion.counted, opinion.priors[:, None])
    assert [[WORDS[each] for each in one.stances] for one in built] == counted.tolist()
    pooled = np.array([WORDS[one.pooled_stance] for one in built])
    assert count_mix("pooled", pooled) == expected[3]
    decided = np.array([WORDS[one.decided_stance] for one in built])
    assert count_mix("after threshold", decided) == expected[4]
