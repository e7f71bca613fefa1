"""One wrong fact at a time about what the models said, and the row that an audit must name."""

from msgspec.structs import replace

from schemas.models import ModelEventRecorded
from schemas.opinions import OpinionPooled
from schemas.signals import SignalEmitted
from tests.infra.audit.changes import changed, revoted, silenced, unsignalled, without
from tests.infra.audit.facts import at

OPINION_MUTATIONS = {
    "an opinion is of no feature vector": (
        lambda: changed(OpinionPooled, 1, cause="features/none"),
        ("causal chain", "cause exists", "model.opinions", 1, ""),
    ),
    "an opinion has another id": (
        lambda: changed(OpinionPooled, 1, id="0" * 32),
        ("ids", "follows from the inputs", "model.opinions", 1, "0" * 32),
    ),
    "an opinion names another bar": (
        lambda: changed(OpinionPooled, 1, bar_id="bar/other"),
        ("ids", "bar_id is the bar", "model.opinions", 1, ""),
    ),
    "an opinion lacks a weight": (
        lambda: changed(OpinionPooled, 1, weights=[0.6, 0.4]),
        ("opinions", "one entry in each list", "model.opinions", 1, ""),
    ),
    "weights of an opinion do not sum to one": (
        lambda: changed(OpinionPooled, 1, weights=[0.6, 0.3998, 0.0]),
        ("opinions", "shares of one vote", "model.opinions", 1, ""),
    ),
    "a silent voter of an opinion has a weight": (
        lambda: changed(OpinionPooled, 1, weights=[0.6, 0.3, 0.1]),
        ("opinions", "who abstains", "model.opinions", 1, "/silent"),
    ),
    "a voter of an opinion is surer than sure": (
        lambda: changed(OpinionPooled, 1, sell=[0.4, 0.125, None]),
        ("opinions", "a distribution and a stance", "model.opinions", 1, "/model"),
    ),
    "an opinion's pool is not that of its parts": (
        lambda: changed(OpinionPooled, 1, pooled_buy=0.626),
        ("opinions", "probability of buy follows", "model.opinions", 1, ""),
    ),
    "an opinion has a pool without a voter": (
        lambda: changed(OpinionPooled, 1, pooled_sell=None, pooled_buy=None),
        ("opinions", "if and only if", "model.opinions", 1, ""),
    ),
    "an opinion decides without an edge": (
        lambda: changed(OpinionPooled, 1, decided_stance="buy"),
        ("opinions", "edge and the threshold", "model.opinions", 1, ""),
    ),
    "an opinion decides against its pool": (
        lambda: changed(OpinionPooled, 1, decided_stance="sell"),
        ("opinions", "edge and the threshold", "model.opinions", 1, ""),
    ),
    "an opinion has an edge without a volatility": (
        lambda: changed(OpinionPooled, 1, edge_bps=9_999.0),
        ("opinions", "an edge follows", "model.opinions", 1, ""),
    ),
    "an opinion has another threshold": (
        lambda: changed(OpinionPooled, 1, threshold_bps=2.0),
        ("opinions", "the threshold follows", "model.opinions", 1, ""),
    ),
    "an opinion is multiplied without bounds": (
        lambda: changed(OpinionPooled, 1, multiplier=9.0),
        ("opinions", "a multiplier is within", "model.opinions", 1, ""),
    ),
    "a signal is multiplied by another factor": (
        lambda: changed(OpinionPooled, 1, multiplier=1.2),
        ("opinions", "agreement and multiplier", "trade.signals", 1, ""),
    ),
    "an opinion agrees less than its voters": (
        lambda: changed(OpinionPooled, 1, agreement="weak"),
        ("opinions", "the agreement follows", "model.opinions", 1, ""),
    ),
    "an opinion counts none who agree": (
        lambda: changed(OpinionPooled, 1, agreeing=0),
        ("opinions", "those who agree", "model.opinions", 1, ""),
    ),
    "a voter of an opinion stands against what it says": (
        lambda: changed(OpinionPooled, 1, stances=["sell", "buy", "abstain"]),
        ("opinions", "a stance is the greater", "model.opinions", 1, "/model"),
    ),
    "more is taken off a voter than it earned": (
        lambda: changed(OpinionPooled, 1, tilts=[0.0, 0.1, None]),
        ("opinions", "what is taken off a voter", "model.opinions", 1, "/other"),
    ),
    "something is taken off a voter that is silent": (
        lambda: changed(OpinionPooled, 1, tilts=[0.0, 0.0, 0.0]),
        ("opinions", "nothing is taken off who abstains", "model.opinions", 1, "/silent"),
    ),
    "a voter that speaks is said to have been silent": (
        lambda: changed(
            OpinionPooled, 1, tilts=[0.0, None, None], raw_stances=["buy", "abstain", "abstain"]
        ),
        ("opinions", "nothing is taken off who abstains", "model.opinions", 1, "/other"),
    ),
    "a voter is said to have said what nobody can": (
        lambda: changed(OpinionPooled, 1, raw_stances=["buy", "nonsense", "abstain"]),
        ("opinions", "a raw stance is the greater", "model.opinions", 1, "/other"),
    ),
    "a voter is said to have said the opposite": (
        lambda: changed(OpinionPooled, 1, raw_stances=["buy", "sell", "abstain"]),
        ("opinions", "a raw stance is the greater", "model.opinions", 1, "/other"),
    ),
    "an opinion does not say what was taken off": (
        lambda: changed(OpinionPooled, 1, tilts=[]),
        ("opinions", "one entry in each list", "model.opinions", 1, ""),
    ),
    "an opinion leaves out a model": (
        lambda: changed(
            OpinionPooled,
            1,
            voters=["model", "other"],
            sell=[0.125, 0.125],
            buy=[0.625, 0.625],
            stances=["buy", "buy"],
            weights=[0.6, 0.4],
            raw_stances=["buy", "buy"],
            tilts=[0.0, 0.0],
        ),
        ("opinions", "the models of the settings", "model.opinions", 1, ""),
    ),
    "an opinion weighs as nobody said": (
        lambda: changed(OpinionPooled, 1, weights=[0.5, 0.5, 0.0]),
        ("opinions", "told before", "model.opinions", 1, ""),
    ),
    "a weight was told only later": (
        lambda: changed(
            ModelEventRecorded, where={"model": "other", "version": "1"}, effective_from_ns=at(90)
        ),
        ("opinions", "told before", "model.opinions", 0, ""),
    ),
    "the first bar has no opinion": (
        lambda: without(OpinionPooled, 0),
        ("opinions", "one opinion on each bar", "model.opinions", -1, f"/{at(60)}"),
    ),
    "a bar without a signal has no opinion": (
        lambda: unsignalled(OpinionPooled),
        ("opinions", "one opinion on each bar", "model.opinions", -1, f"/{at(180)}"),
    ),
    "a signal is silent where the models spoke": (
        lambda: silenced(1),
        ("opinions", "carries the pooled opinion", "trade.signals", 1, ""),
    ),
    "a signal of a longer timeframe has another pool": (
        lambda: changed(SignalEmitted, 1, timeframe="1h", probability_buy=0.7),
        ("opinions", "carries the pooled opinion", "trade.signals", 1, ""),
    ),
    "a vote of a signal is not that of the opinion": (
        lambda: revoted(
            1,
            lambda votes: [
                replace(votes[0], probability_buy=0.6, probability_hold=0.275),
                *votes[1:],
            ],
        ),
        ("opinions", "the votes of a signal", "trade.signals", 1, "/model"),
    ),
    "a model votes with a version that did not serve": (
        lambda: revoted(1, lambda votes: [replace(votes[0], version="7"), *votes[1:]]),
        ("opinions", "the version that served", "trade.signals", 1, "/model"),
    ),
    "a model votes with bytes that did not serve": (
        lambda: revoted(1, lambda votes: [replace(votes[0], content_hash="d" * 64), *votes[1:]]),
        ("opinions", "the version that served", "trade.signals", 1, "/model"),
    ),
    "a model votes before it served": (
        lambda: changed(ModelEventRecorded, where={"version": "2"}, effective_from_ns=at(61)),
        ("opinions", "the version that served", "trade.signals", 0, "/other"),
    ),
    "a version votes that never served": (
        lambda: without(ModelEventRecorded, version="2"),
        ("opinions", "the version that served", "trade.signals", 0, "/other"),
    ),
    "a signal has another edge than its opinion": (
        lambda: changed(SignalEmitted, 1, expected_edge_bps=50.0),
        ("opinions", "carries edge and threshold", "trade.signals", 1, ""),
    ),
    "an opinion names no known agreement": (
        lambda: changed(OpinionPooled, 1, agreement="most"),
        ("opinions", "known agreement", "model.opinions", 1, ""),
    ),
    "a signal's bar has no opinion": (
        lambda: without(OpinionPooled, 1),
        ("opinions", "carries the pooled opinion", "trade.signals", 1, ""),
    ),
    "a signal has another pool than its bar": (
        lambda: changed(OpinionPooled, 1, pooled_sell=0.1249),
        ("opinions", "carries the pooled opinion", "trade.signals", 1, ""),
    ),
}
