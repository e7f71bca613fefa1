import msgspec
import polars as pl
import pytest

from infra.clickhouse.errors import RecordUnknownError
from infra.clickhouse.why import explain, explain_at
from infra.clickhouse.writer import ArchiveWriter
from schemas.batches import TickBatch
from schemas.features import FEATURE_SCHEMAS
from schemas.fields import Action
from schemas.ids import tick_id
from schemas.instruments import InstrumentBook
from schemas.market import BarClosed, FeaturesComputed, InstrumentListed
from schemas.models import ContextObserved
from schemas.opinions import OpinionPooled
from schemas.regime import Regime
from schemas.signals import SignalEmitted
from schemas.ticks import TICK_FRAME
from schemas.trading import DecisionMade, OrderFilled, OrderUpdated, OutcomeClosed, Verdict
from tests.contracts.samples import (
    HOUR_NS,
    MINUTE_NS,
    OPEN_NS,
    SYMBOL,
    bar,
    closed_leg,
    denied_leg,
    features,
    samples,
    signal,
)
from tests.infra.clickhouse.records import batches_of

pytestmark = pytest.mark.stack

LEG = closed_leg()
DENIED = denied_leg(OPEN_NS + 5 * HOUR_NS)
QUIET = bar(OPEN_NS + 8 * HOUR_NS)


def of_type(messages, kind):
    return [each for each in messages if isinstance(each, kind)]


ENTRY, EXIT = of_type(LEG, OrderFilled)


@pytest.fixture
def archive(client, as_record):
    writer = ArchiveWriter(client)
    writer.write(batches_of([*LEG, *DENIED, QUIET, features(QUIET)], as_record))
    listed = next(each for each in samples() if isinstance(each, InstrumentListed))
    rows = [(10, n, 1, OPEN_NS + n * MINUTE_NS, 0, 6168599, 1, 1, n, 0, 0, 2) for n in range(90)]
    columns = {name: [row[place] for row in rows] for place, name in enumerate(TICK_FRAME)}
    batch = TickBatch(
        partition=2,
        ticks=pl.DataFrame(columns, schema=TICK_FRAME),
        dead_letters=[],
        next_offset=11,
        ingest_time_ns=1_800_000_000_000_000_000,
    )
    writer.write_ticks([batch, batch], InstrumentBook([listed]))
    return client


@pytest.mark.parametrize(
    ("subject", "record_id"),
    [
        ("fill", ENTRY.id),
        ("order", ENTRY.order_id),
        ("order", of_type(LEG, OrderUpdated)[0].id),
        ("order", of_type(LEG, OrderUpdated)[0].client_order_id),
        ("decision", ENTRY.decision_id),
        ("signal", of_type(LEG, SignalEmitted)[0].id),
        ("outcome", of_type(LEG, OutcomeClosed)[0].id),
    ],
)
@pytest.mark.acceptance(
    "S-028", criterion="from any fill, order, decision or signal to its whole chain"
)
def test_any_record_leads_to_the_whole_chain(archive, subject, record_id, measured):
    found = explain(archive, record_id)
    assert (found.subject, found.record_id, found.missing) == (subject, record_id, [])
    assert found.bar == of_type(LEG, BarClosed)[0]
    assert found.signal == of_type(LEG, SignalEmitted)[0]
    assert found.decision == of_type(LEG, DecisionMade)[0]
    assert found.orders == of_type(LEG, OrderUpdated)[:2]
    assert found.fills == [ENTRY]
    assert found.outcome == of_type(LEG, OutcomeClosed)[0]
    assert (found.config_hash, found.epoch) == ("cfg1", 3)
    measured(f"{subject}: {len(found.features)} features, {len(found.signal.votes)} votes")


def test_ticks_are_named_by_their_place_in_the_log_and_counted_once(archive):
    ticks = explain(archive, ENTRY.id).ticks
    assert (ticks.first, ticks.last) == (tick_id(2, 10, 0), tick_id(2, 15, 3))
    assert ticks.stored == 60


def test_features_carry_names_units_and_what_is_missing(archive):
    found = explain(archive, ENTRY.id)
    schema = FEATURE_SCHEMAS["fs34"]
    vector = of_type(LEG, FeaturesComputed)[0].vector
    assert [(each.name, each.value, each.unit) for each in found.features] == [
        (feature.name, value, feature.unit)
        for feature, value in zip(schema.features, vector, strict=True)
    ]
    assert found.feature_schema == f"fs34 {schema.schema_hash}"


def test_an_exit_leads_to_the_decision_that_closed_the_leg(archive):
    found = explain(archive, EXIT.id)
    assert found.decision.id == found.outcome.exit_decision_id == EXIT.decision_id
    assert found.signal.action is Action.EXIT


def test_a_denial_is_explained_with_measure_and_limit(archive):
    signal_id = of_type(DENIED, SignalEmitted)[0].id
    found = explain(archive, signal_id)
    assert found.decision.verdict is Verdict.DENIED
    assert (found.decision.checks[1].measured, found.decision.checks[1].limit) == (
        "145000.12",
        "10000",
    )
    assert (found.orders, found.fills, found.outcome, found.missing) == ([], [], None, [])
    assert "denied (POSITION_NOTIONAL)" in found.summary


def test_an_unknown_id_is_named(archive):
    with pytest.raises(RecordUnknownError, match="found none with id 'no-such'; check the id"):
        explain(archive, "no-such")


def test_a_moment_without_a_signal_shows_its_bar_and_features(archive):
    found = explain_at(archive, SYMBOL, QUIET.close_time_ns + 17)
    assert (found.subject, found.bar, found.signal) == ("moment", QUIET, None)
    assert len(found.features) == 34
    assert "no strategy crossed its condition" in found.summary
    assert found.missing == []


def observed(regime, at_ns, symbol=SYMBOL):
    (one,) = of_type(samples(), ContextObserved)
    changes = {"id": f"{at_ns}/{symbol}", "symbol": symbol, "event_time_ns": at_ns}
    return msgspec.structs.replace(one, regime=regime, **changes)


def test_the_regime_is_the_newest_at_the_close_of_the_bar(archive, as_record):
    assert explain(archive, ENTRY.id).regime is None
    close_ns = of_type(LEG, BarClosed)[0].close_time_ns
    records = [
        observed(Regime.CRISIS, close_ns - HOUR_NS),
        observed(Regime.BULL_TRENDING, close_ns),
        observed(Regime.BEAR_TRENDING, close_ns + 1),
        observed(Regime.CRISIS, close_ns, "OTHER"),
        msgspec.structs.replace(observed(Regime.CRISIS, close_ns), id="other", kind="funding"),
    ]
    ArchiveWriter(archive).write(batches_of(records, as_record))
    assert explain(archive, ENTRY.id).regime == records[1]
    assert explain_at(archive, SYMBOL, QUIET.close_time_ns).regime == records[2]


def test_a_moment_without_a_signal_shows_what_the_models_said_last(archive, as_record):
    assert explain_at(archive, SYMBOL, QUIET.close_time_ns).opinion is None
    (one,) = of_type(samples(), OpinionPooled)
    records = [
        msgspec.structs.replace(one, id=f"{at_ns:032d}", symbol=SYMBOL, event_time_ns=at_ns)
        for at_ns in (QUIET.close_time_ns - HOUR_NS, QUIET.close_time_ns, QUIET.close_time_ns + 1)
    ]
    ArchiveWriter(archive).write(batches_of(records, as_record))
    assert explain_at(archive, SYMBOL, QUIET.close_time_ns).opinion == records[1]


def test_a_moment_with_a_signal_explains_the_signal(archive):
    denied = of_type(DENIED, SignalEmitted)[0]
    found = explain_at(archive, SYMBOL, denied.event_time_ns, venue="binance_spot")
    assert (found.subject, found.record_id) == ("signal", denied.id)


def test_of_several_signals_the_one_that_was_traded_is_explained(archive, as_record):
    traded = of_type(LEG, SignalEmitted)[0]
    other = msgspec.structs.replace(traded, id="0other", strategy="a_first", cause=traded.cause)
    ArchiveWriter(archive).write(batches_of([other], lambda each, _: as_record(each, 99)))
    found = explain_at(archive, SYMBOL, traded.event_time_ns)
    assert (found.record_id, found.also) == (traded.id, ["0other"])


def test_a_moment_never_looks_ahead(archive):
    first = of_type(LEG, BarClosed)[0]
    with pytest.raises(RecordUnknownError, match="must have a closed bar by"):
        explain_at(archive, SYMBOL, first.close_time_ns - 1)
    assert explain_at(archive, SYMBOL, first.close_time_ns + HOUR_NS - 1).bar == first
    with pytest.raises(RecordUnknownError):
        explain_at(archive, SYMBOL, OPEN_NS * 2, venue="elsewhere")


def test_a_link_that_is_gone_is_named(client, as_record):
    kept = [each for each in LEG if not isinstance(each, BarClosed | FeaturesComputed)]
    ArchiveWriter(client).write(batches_of(kept, as_record))
    found = explain(client, ENTRY.id)
    assert found.missing == ["features", "bar"]
    assert (found.bar, found.ticks, found.features) == (None, None, [])


def test_features_of_another_release_keep_their_positions(client, as_record):
    closed = bar(OPEN_NS + HOUR_NS)
    foreign = msgspec.structs.replace(features(closed), schema_hash="0" * 16)
    opinion = signal(foreign, Action.ENTER)
    ArchiveWriter(client).write(batches_of([closed, foreign, opinion], as_record))
    found = explain(client, opinion.id)
    assert found.features[1].name == "feature_1"
    assert found.missing == ["decision"]
