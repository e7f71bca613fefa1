"""What `why` prints, as a person reads it."""

from msgspec.structs import replace

from dataflows.cli.explain import print_explanation
from infra.clickhouse.why import Explanation
from schemas.opinions import OpinionPooled
from schemas.signals import SignalEmitted
from tests.contracts.samples import samples

_LINES = str.maketrans(dict.fromkeys("│├└─", " "))


def printed(capsys, **links):
    """Return the words of the tree for a moment with these links."""
    moment = Explanation(
        subject="moment",
        record_id="bar/1",
        summary="because",
        venue="binance_spot",
        symbol="BTCUSDT",
        event_time_ns=0,
        ticks=None,
        bar=None,
        feature_schema="",
        features=[],
        decision=None,
        orders=[],
        fills=[],
        outcome=None,
        config_hash="c",
        epoch=1,
        missing=[],
        **{"signal": None, **links},
    )
    print_explanation(moment)
    return " ".join(capsys.readouterr().out.translate(_LINES).split())


def sample(kind):
    return next(one for one in samples() if isinstance(one, kind))


def test_a_moment_without_a_signal_shows_every_model_and_the_pool(capsys):
    told = printed(capsys, opinion=replace(sample(OpinionPooled), edge_bps=-3.5))
    assert "lightgbm: buy sell/hold/buy 0.250/0.250/0.500 weight 1" in told
    assert "river_logistic: abstain weight 0" in told
    assert "pooled: buy sell/hold/buy 0.250/0.250/0.500, unanimous" in told
    assert "expected edge -3.50 bps, needs 2.2 bps" in told


def test_a_signal_shows_what_its_votes_add_up_to(capsys):
    pooled = {"probability_sell": 0.2, "probability_hold": 0.3, "probability_buy": 0.5}
    found = replace(
        sample(SignalEmitted),
        **pooled,
        agreement="",
        expected_edge_bps=None,
        edge_threshold_bps=2.0,
    )
    told = printed(capsys, signal=found)
    assert (
        "pooled sell/hold/buy 0.200/0.300/0.500, no direction; expected edge unknown, needs 2"
        in told
    )
