from io import StringIO

import pytest
from rich.console import Console

from infra.report.summary import summarise
from infra.report.terminal import print_summary
from infra.report.words import amount, number, percent
from tests.infra.report.ledger_of_two import CASH


def printed(summary, width=80):
    console = Console(file=StringIO(), width=width, highlight=False)
    print_summary(console, summary)
    return console.file.getvalue()


def test_every_title_says_paper(summary):
    text = printed(summary)
    for title in ("session", "P&L by strategy", "why signals were not traded"):
        assert f"PAPER · {title}" in text


def test_names_and_figures_stay_whole_on_a_narrow_terminal(summary):
    lines = printed(summary).splitlines()
    row = next(line for line in lines if "rsi_mean_reversion" in line)
    assert "+13.50" in row
    assert "+1.35%" in row
    assert max(map(len, lines)) <= 80


def test_empty_session_prints_without_a_made_up_number(empty):
    text = printed(summarise(empty, CASH))
    assert "n/a" in text
    assert "No signal was denied" in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [("1234.5", "+1,234.50"), ("-0.001", "0.00"), ("-2", "-2.00"), (None, "n/a")],
)
def test_amounts_are_read_at_a_glance(value, shown):
    assert amount(value, signed=True) == shown


def test_unknown_is_never_zero():
    assert {amount(None), percent(None), number(None)} == {"n/a"}
    assert (percent(-0.001), percent(1.0), percent(1.0, 0, signed=False)) == (
        "0.00%",
        "+1.00%",
        "1%",
    )
