import subprocess
import sys
from datetime import UTC, date, datetime

import numpy as np
import pytest

from infra.sessions import load_sessions
from operators.sessions import SessionTable


def to_ns(text):
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000_000


@pytest.fixture(scope="module")
def new_york():
    return load_sessions(["XNYS", "24/7"], SessionTable)["XNYS"]


@pytest.mark.parametrize(
    ("open_text", "close_text"),
    [
        ("2013-10-07T13:30", "2013-10-07T20:00"),
        ("2013-11-01T13:30", "2013-11-01T20:00"),
        ("2013-11-04T14:30", "2013-11-04T21:00"),
        ("2013-11-29T14:30", "2013-11-29T18:00"),
        ("2024-07-03T13:30", "2024-07-03T17:00"),
    ],
    ids=["summer time", "before the change", "after the change", "half day", "eve of a holiday"],
)
def test_sessions_of_new_york_open_and_close_at_these_utc_times(new_york, open_text, close_text):
    open_ns, close_ns = to_ns(open_text), to_ns(close_text)

    index = new_york.locate(np.array([open_ns - 1, open_ns, close_ns - 1, close_ns]))

    assert index[[0, 3]].tolist() == [-1, -1]
    assert index[1] == index[2] >= 0
    assert (new_york.open_ns[index[1]], new_york.close_ns[index[1]]) == (open_ns, close_ns)


@pytest.mark.parametrize("day", ["2013-10-05", "2013-10-06", "2013-12-25", "2012-10-29"])
def test_there_is_no_session_on_a_weekend_a_holiday_or_a_day_of_storm(new_york, day):
    hours = np.array([to_ns(f"{day}T{hour:02}:00") for hour in range(24)])

    assert (new_york.locate(hours) == -1).all()


def test_friday_and_monday_are_neighbours(new_york):
    index = new_york.locate(np.array([to_ns("2013-10-04T15:00"), to_ns("2013-10-07T15:00")]))

    assert index[1] - index[0] == 1


def test_the_asked_range_is_covered_and_beyond_it_nothing_is_claimed(new_york):
    table = load_sessions(["XNYS"], SessionTable, date(2020, 1, 1), date(2020, 12, 31))["XNYS"]

    asked = np.array([to_ns("2020-01-01T00:00"), to_ns("2020-12-31T23:59")])
    assert table.locate(asked).tolist() == [-1, -1]
    with pytest.raises(ValueError, match="build the table over a range that holds it"):
        table.locate(np.array([to_ns("2021-06-01T15:00")]))


def test_a_session_that_begins_on_the_evening_before_is_one_session():
    table = load_sessions(["CMES"], SessionTable, date(2024, 1, 8), date(2024, 1, 12))["CMES"]

    evening, noon = table.locate(
        np.array([to_ns("2024-01-09T23:30"), to_ns("2024-01-10T12:00")])
    ).tolist()

    assert evening == noon >= 0


def test_a_calendar_with_an_end_is_loaded_up_to_it():
    table = load_sessions(["XHKG"], SessionTable, last_day=date(2060, 1, 1))["XHKG"]

    assert table.covers_until_ns <= to_ns("2049-12-31T23:59")


def test_an_unknown_calendar_is_refused_by_name():
    with pytest.raises(ValueError, match=r"calendar 'XXXX'; must be one of exchange-calendars"):
        load_sessions(["XXXX"], SessionTable)


def test_around_the_clock_needs_no_table_and_no_import():
    code = (
        "import sys; from infra.sessions import load_sessions;"
        "assert load_sessions(['24/7'], dict) == {};"
        "assert 'pandas' not in sys.modules and 'exchange_calendars' not in sys.modules"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
