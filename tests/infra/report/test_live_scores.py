"""Live log-loss beside the card: what is read, what counts, and where it lies."""

import json
from decimal import Decimal

import msgspec
import pytest

from infra.report.live_scores import Band, Standing, judge, read_bands, score_live
from infra.report.session import build_session
from infra.report.summary import summarise
from schemas.frames import to_frame
from schemas.models import ModelEventKind, ModelEventRecorded
from tests.contracts.samples import HOUR_NS, OPEN_NS, samples

BAND = Band(log_loss=1.04, low=1.01, high=1.07)
HASH, OTHER = "a" * 64, "b" * 64


def scored(hour, log_loss, count=400, **changes):
    one = next(each for each in samples() if isinstance(each, ModelEventRecorded))
    given = {
        "id": f"{hour}/{changes}",
        "model": "lightgbm",
        "kind": ModelEventKind.SCORED,
        "version": "1.aaaaaaaa",
        "content_hash": HASH,
        "partition": 0,
        "effective_from_ns": OPEN_NS + hour * HOUR_NS,
        "scored_events": count,
        "log_loss": log_loss,
    }
    return msgspec.structs.replace(one, **(given | changes))


def scores(*events, bands=None, **options):
    given = {HASH: BAND} if bands is None else bands
    return score_live(to_frame(ModelEventRecorded, list(events)), given, **options)


def write_card(folder, evaluation, digest=HASH):
    folder.mkdir()
    card = {"files": {"model.onnx": digest}, "evaluation": evaluation}
    (folder / "card.json").write_text(json.dumps(card))
    return folder


@pytest.mark.acceptance("S-097", criterion="Live score inside, below or above the card's OOS band")
@pytest.mark.parametrize(
    ("log_loss", "expected"),
    [
        (1.0099, Standing.BELOW),
        (1.01, Standing.INSIDE),
        (1.07, Standing.INSIDE),
        (1.0701, Standing.ABOVE),
    ],
)
def test_a_live_loss_lies_below_inside_or_above_the_band_of_its_card(
    tmp_path, log_loss, expected, measured
):
    judged = {"log_loss": {"value": 1.04, "interval_95": [1.01, 1.07]}}
    folder = write_card(tmp_path / "model", {"test": {"measures": judged}})
    (one,) = scores(scored(1, log_loss), bands=read_bands([folder]))
    assert (one.standing, one.band, one.log_loss) == (expected, BAND, log_loss)
    measured(f"{log_loss} against {BAND.low} to {BAND.high}: {one.standing}")


def test_too_few_predictions_are_not_judged():
    assert judge(9.0, 299, BAND, 300) is Standing.TOO_FEW
    assert judge(9.0, 300, BAND, 300) is Standing.ABOVE
    assert judge(None, 300, BAND, 300) is Standing.TOO_FEW
    (one,) = scores(scored(1, 9.0, 40), scored_min=50)
    assert one.standing is Standing.TOO_FEW


def test_the_newest_score_of_each_lane_counts_by_its_predictions():
    (one,) = scores(
        scored(1, 9.0), scored(5, 1.0, 600), scored(4, 1.2, 200, partition=1), scored(3, 9.0)
    )
    assert (one.scored, one.lanes) == (800, 2)
    assert one.log_loss == pytest.approx((600 * 1.0 + 200 * 1.2) / 800)


def test_only_the_newest_version_is_held_against_its_own_card():
    newer = {"version": "2.bbbbbbbb", "content_hash": OTHER, "partition": 1}
    (one,) = scores(
        scored(1, 9.0),
        scored(2, 1.0, 500, **newer),
        bands={HASH: BAND, OTHER: Band(log_loss=0.9, low=0.8, high=0.95)},
    )
    assert (one.version, one.lanes, one.scored, one.standing) == ("2.bbbbbbbb", 1, 500, "above")


def test_who_has_no_card_has_no_band(tmp_path):
    older = write_card(tmp_path / "older", {"test": {"log_loss": 0.9}})
    none = write_card(
        tmp_path / "none", {"test": {"measures": {"log_loss": {"interval_95": None}}}}
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    assert read_bands([older, none, empty]) == {}
    (one,) = scores(scored(1, 1.0, model="river_logistic", content_hash=""))
    assert (one.standing, one.log_loss) == (Standing.NO_BAND, 1.0)


def test_weights_and_changes_are_no_scores():
    assert scores(scored(1, 1.0, kind=ModelEventKind.WEIGHTS)) == []


def test_the_summary_tells_every_model():
    session = build_session(
        "hand", [scored(1, 1.2), scored(1, 1.0, model="river_forest", content_hash="")]
    )
    found = summarise(session, Decimal(1000), score_bands={HASH: BAND})["live_scores"]
    assert [(row["model"], row["standing"]) for row in found["models"]] == [
        ("lightgbm", "above"),
        ("river_forest", "no band"),
    ]
    assert "never saw" in found["definition"]
