import json
import re
from decimal import Decimal
from html.parser import HTMLParser

import plotly.graph_objects as go
import pytest
from msgspec.structs import replace

from infra.report.figures import MARKERS_TOTAL, build_figures, thin_bars
from infra.report.render import FILLS_SHOWN, newest_fills, render_report, write_report
from infra.report.session import build_session
from infra.report.summary import summarise
from tests.infra.report.ledger_of_two import CASH, session_records

VOID = {"meta", "br", "link", "img", "input", "hr"}
SIZE_BYTES_MAX = 8_000_000


class Outline(HTMLParser):
    """Checks that every element is closed in order and keeps what a browser would fetch."""

    def __init__(self):
        super().__init__()
        self.open, self.wrong, self.fetched, self.scripts = [], [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.fetched += [
            value for name, value in attrs if name in {"src", "href", "srcset", "data"}
        ]

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        if self.open and self.open[-1] in {"script", "style"}:
            self.scripts.append(data)


def outline_of(page):
    parser = Outline()
    parser.feed(page)
    parser.close()
    return parser


@pytest.fixture(scope="module")
def page(session, summary):
    return render_report(session, summary)


def test_page_is_well_formed(page):
    found = outline_of(page)
    assert page.startswith("<!doctype html>")
    assert found.wrong == []
    assert found.open == []


def test_page_fetches_nothing(page):
    found = outline_of(page)
    assert found.fetched == []
    own = [text for text in found.scripts if len(text) < 1_000_000]
    assert len(own) == len(found.scripts) - 1
    assert not [
        text for text in own if re.search(r"https?://|@import|url\(|fetch\(|import\(", text)
    ]
    assert "default-src 'none'" in page


def test_page_says_paper_and_stays_small(page, summary):
    assert "<b>PAPER</b>" in page
    assert len(page.encode()) <= SIZE_BYTES_MAX
    for strategy in summary["strategies"]:
        assert strategy["strategy"] in page


def test_session_without_a_record_renders(empty):
    page = render_report(empty, summarise(empty, CASH))
    found = outline_of(page)
    assert found.wrong == found.open == []
    assert "Nothing was filled" in page


def test_text_of_a_record_cannot_become_markup():
    hostile = "</script><script>alert(1)</script>"
    records = [
        replace(row, reason=hostile) if type(row).__name__ == "SignalEmitted" else row
        for row in session_records()
    ]
    renamed = [
        replace(row, strategy=hostile) if getattr(row, "strategy", "") else row for row in records
    ]
    session = build_session(hostile, renamed)
    page = render_report(session, summarise(session, CASH))
    assert hostile not in page
    assert outline_of(page).wrong == []


def figures_of(drawn):
    return [*drawn["prices"].values(), *(drawn[name] for name in drawn if name != "prices")]


def painted(part):
    if isinstance(part, str):
        return "#123456" if part.startswith("@") else part
    if isinstance(part, list):
        return [painted(one) for one in part]
    return {name: painted(one) for name, one in part.items()} if isinstance(part, dict) else part


def test_every_figure_is_one_that_plotly_accepts(session, summary, empty):
    nothing = build_figures(empty, summarise(empty, CASH))
    for figure in (*figures_of(build_figures(session, summary)), *figures_of(nothing)):
        go.Figure(painted(figure))
        json.dumps(figure, allow_nan=False)


def test_every_colour_is_in_both_palettes(page, session, summary):
    used = set(re.findall(r'"@([a-z]+)"', json.dumps(build_figures(session, summary))))
    for palette in re.findall(r"const (?:LIGHT|DARK) = \{(.*?)\};", page, re.DOTALL):
        assert used <= set(re.findall(r"([a-z]+): \"", palette))


def test_fills_are_drawn_where_they_happened(session, summary):
    traces = build_figures(session, summary)["prices"]["binance_spot:BTCUSDT"]["data"]
    named = {trace.get("name"): trace for trace in traces}
    assert {"close", "entry", "exit", "protective stop"} <= set(named)
    assert len(named["entry"]["text"]) == 2
    assert MARKERS_TOTAL > 2


def test_thinned_bars_keep_the_extremes(session):
    bars = session["market.bars"].filter(symbol="BTCUSDT")
    thin = thin_bars(bars, 2)
    assert thin.height == 2
    assert (thin["high"].max(), thin["low"].min()) == (bars["high"].max(), bars["low"].min())
    assert thin["close"][-1] == bars["close"][-1]


def test_newest_fills_come_first_with_the_reason_behind_them(session):
    fills = newest_fills(session)
    times = [fill["event_time_ns"] for fill in fills]
    assert times == sorted(times, reverse=True)
    assert len(fills) == 6 <= FILLS_SHOWN
    assert all(fill["signal_reason"].startswith("RSI 34.20") for fill in fills)
    assert fills[0]["price"] == Decimal(95)


def test_page_is_written_whole(tmp_path, session, summary):
    target = tmp_path / "deep" / "report.html"
    size = write_report(session, summary, target)
    assert target.stat().st_size == size
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]
