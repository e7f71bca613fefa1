import re

import pytest

from onnx_models.report import ReportPart, describe_card, write_page
from onnx_models.tables import COLUMNS, SHORT_COLUMNS, card_rows, short_rows
from onnx_models.train import Training, TrainOptions
from onnx_models.trees import LightGBMFamily
from tests.onnx_models.recorded import quick, three_symbols


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    out = tmp_path_factory.mktemp("trained")
    return Training(quick(LightGBMFamily), three_symbols(), TrainOptions(folds=1), out).run().card


def test_a_model_stands_beside_its_baselines_in_every_period(card):
    rows = list(card_rows(card))
    assert [row[0] for row in rows] == [
        "lightgbm_1h", "class_prior", "last_sign", "logistic_regression",
    ] * 2  # fmt: skip
    assert {len(row) for row in rows} == {len(COLUMNS)}
    assert {len(row) for row in short_rows(card)} == {len(SHORT_COLUMNS)}
    assert re.fullmatch(r"[+-]0\.\d{4} \[[+-]0\.\d{4}, [+-]0\.\d{4}\]", rows[0][4])


def test_the_page_needs_nothing_beside_it(card, tmp_path):
    page = tmp_path / "report.html"
    size_bytes = write_page(page, "Trained models", [describe_card(card)], ["a note"])
    text = page.read_text()
    assert size_bytes == page.stat().st_size
    assert "log-loss" in text
    assert not re.search(r"<(?:script|link|img)[^>]+(?:src|href)=", text)
    assert [one.name for one in tmp_path.iterdir()] == ["report.html"]


def test_a_name_cannot_become_markup(tmp_path):
    evil = "</script><script>alert(1)</script>"
    figure = {"data": [], "layout": {"title": {"text": evil}}}
    part = ReportPart(title=evil, notes=[evil], rows=[], figures=[figure])
    write_page(tmp_path / "page.html", evil, [part], [evil])
    assert "<script>alert" not in (tmp_path / "page.html").read_text()
