import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.sessions import SessionTable


def build_table(opens=(100, 300), closes=(200, 400), covers_from_ns=0, covers_until_ns=1000):
    return SessionTable(
        calendar="XNYS",
        open_ns=np.array(opens, dtype=np.int64),
        close_ns=np.array(closes, dtype=np.int64),
        covers_from_ns=covers_from_ns,
        covers_until_ns=covers_until_ns,
    )


def test_a_session_holds_its_open_and_not_its_close():
    instants = np.array([0, 99, 100, 199, 200, 299, 300, 399, 400, 999])

    found = build_table().locate(instants)

    assert found.tolist() == [-1, -1, 0, 0, -1, -1, 1, 1, -1, -1]


@pytest.mark.parametrize("instant", [-1, 1000])
def test_an_instant_outside_the_covered_range_is_an_error_not_a_guess(instant):
    with pytest.raises(ValueError, match=rf"calendar 'XNYS'; knows .* found event time {instant} "):
        build_table().locate(np.array([150, instant]))


def test_no_instants_are_located_nowhere():
    assert build_table().locate(np.array([], dtype=np.int64)).size == 0


def test_a_calendar_without_sessions_is_always_closed():
    assert build_table((), ()).locate(np.array([5])).tolist() == [-1]


def test_sessions_are_counted_between_two_instants_and_not_at_them():
    table = build_table((100, 300, 500, 700), (200, 400, 600, 800))

    assert table.count_between(100, 300) == 0
    assert table.count_between(100, 700) == 2
    assert table.count_between(0, 1) == 0


@pytest.mark.parametrize(
    ("opens", "closes"),
    [((300, 100), (400, 200)), ((100, 150), (200, 400)), ((100,), (100,)), ((100,), (1001,))],
)
def test_sessions_that_are_unsorted_overlapping_empty_or_uncovered_are_refused(opens, closes):
    with pytest.raises(ValueError, match="must be sorted, apart and inside the covered range"):
        build_table(opens, closes)


@given(edges=st.sets(st.integers(0, 1000), min_size=2, max_size=20), instant=st.integers(0, 999))
def test_location_equals_a_plain_search(edges, instant):
    ordered = sorted(edges)[: len(edges) // 2 * 2]
    opens, closes = ordered[::2], ordered[1::2]
    expected = [
        index
        for index, (start, stop) in enumerate(zip(opens, closes, strict=True))
        if start <= instant < stop
    ]

    found = build_table(opens, closes).locate(np.array([instant]))

    assert found.tolist() == (expected or [-1])
