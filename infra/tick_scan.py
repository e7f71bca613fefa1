"""Compiled reader of plain JSON lines: one pass over a fetch, and no opinion about anything unusual.

A line is plain if it is a flat object of `TICK_WIRE` fields, each at most once, in printable ASCII
without escapes, with numbers that one multiplication or division rounds correctly (W. D. Clinger,
"How to read floating point numbers accurately", 1990). Every other line is only pointed out. All that
the compiled functions read is in this file or handed to them, because numba's on-disk cache notices
changes of a function's own file only.
"""

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from infra.tick_columns import Integers, Names, ParsedTicks
from schemas.ticks import LINE_BYTES_MAX, TICK_WIRE

KINDS: Final = ("trade", "quote", "heartbeat")
SIDES: Final = ("buy", "sell")
FLOATS: Final = ("price", "size", "bid", "bid_size", "ask", "ask_size")
FIELDS: Final = (
    "kind", "event_time_ns", "venue", "symbol", "price", "size", "side", "trade_id",
    "bid", "bid_size", "ask", "ask_size",
)  # fmt: skip
assert tuple(TICK_WIRE.names()) == FIELDS

_TAB, _FEED, _RETURN, _SPACE, _QUOTE, _COMMA, _POINT, _ZERO, _NINE, _COLON = b'\t\n\r ",.09:'
_UPPER_E, _BACKSLASH, _LOWER_E, _LOWER_N, _OPEN, _CLOSE = b"E\\en{}"
_PLUS, _MINUS, _ASCII_MAX = 43, 45, 126

_KIND, _TIME, _VENUE, _SYMBOL, _SIDE, _TRADE_ID, _FIRST_FLOAT = range(7)
_KIND_FIELD, _VENUE_FIELD, _SYMBOL_FIELD, _SIDE_FIELD = map(
    FIELDS.index, ("kind", "venue", "symbol", "side")
)
_PRESENT = _FIRST_FLOAT
"""Where a line's integers hold the bits of the fields that are there and not null."""
_LENGTH = 5
"""How far behind the begin of a venue or symbol its length stands."""
_WIDTH = _SYMBOL + _LENGTH + 1
_NEEDED = 0b11
"""Bits of `kind` and `event_time_ns`, which every line has."""
_POWERS = 10.0 ** np.arange(23)
_EXACT_MAX = 2**53
_BEFORE_LAST_DIGIT_MAX = (2**63 - 10) // 10
_PAIRS_MAX = 1 << 15


def _words(texts: tuple[str, ...]) -> NDArray[np.uint8]:
    """Return one row per text: its length, then its bytes."""
    table = np.zeros((len(texts), 16), dtype=np.uint8)
    for row, text in zip(table, texts, strict=True):
        row[0] = len(text)
        row[1 : 1 + len(text)] = np.frombuffer(text.encode(), dtype=np.uint8)
    return table


_KIND_WORDS, _SIDE_WORDS, _NULL_WORD = _words(KINDS), _words(SIDES), _words(("null",))
_FIELD_WORDS = _words(FIELDS)
_PLACES = ("kind", "event_time_ns", "venue", "symbol", "side", "trade_id", *FLOATS)
_ROLES = np.array([_PLACES.index(name) for name in FIELDS])


class Scanned(NamedTuple):
    """The plain lines of several records in order, one element a line, and where the others stand."""

    ticks: ParsedTicks
    records: Integers
    """Index of the record that each line is from."""
    lines: Integers
    """Number within its record, blank lines not counted."""
    doubtful: Integers
    """One row per line that is not plain: record, number within it, begin and end in the buffer."""
    counts: Integers
    """Lines of each record, blank ones not counted."""


def scan_lines(buffer: bytes, ends: Integers) -> Scanned:
    """Read `buffer`, records that each end with a line feed; `ends` are the places behind those."""
    size = buffer.count(b"\n")
    text = np.frombuffer(buffer, dtype=np.uint8)
    slots = _free_slots(min(size, _PAIRS_MAX))
    records, lines, times_ns, trade_ids = np.empty((4, size), dtype=np.int64)
    kinds, sides = np.empty((2, size), dtype=np.int8)
    present, pairs = np.empty(size, dtype=np.int16), np.empty(size, dtype=np.int32)
    floats = np.empty((len(FLOATS), size), dtype=np.float64)
    spans = np.empty((len(slots) // 2, 4), dtype=np.int64)
    doubtful = np.empty((size, 4), dtype=np.int64)
    counts = np.zeros(len(ends), dtype=np.int64)
    rows, known, doubts = _scan(
        text, ends, LINE_BYTES_MAX, slots,
        records, lines, present, kinds, sides, times_ns, trade_ids, floats, pairs, spans,
        doubtful, counts,
    )  # fmt: skip
    ticks = ParsedTicks(
        present[:rows],
        kinds[:rows],
        sides[:rows],
        times_ns[:rows],
        trade_ids[:rows],
        list(floats[:, :rows]),
        pairs[:rows],
        _read_names(text, spans[:known]),
    )
    return Scanned(ticks, records[:rows], lines[:rows], doubtful[:doubts], counts)


def scan_texts(
    buffer: NDArray[np.uint8], places: Integers, present: NDArray[np.int16]
) -> tuple[NDArray[np.int8], NDArray[np.int8], NDArray[np.int32], Names]:
    """Return kinds, sides, pairs and names of ticks as `ParsedTicks` has them.

    Row `i` of `places` (4, ticks + 1) tells where in `buffer` the UTF-8 of each tick's kind, venue,
    symbol or side begins, and at last where it ends. `present` is that of `ParsedTicks`.
    """
    size = len(present)
    slots = _free_slots(size)
    kinds, sides = np.empty((2, size), dtype=np.int8)
    pairs, spans = np.empty(size, dtype=np.int32), np.empty((len(slots) // 2, 4), dtype=np.int64)
    known = _scan_texts(buffer, places, slots, present, kinds, sides, pairs, spans)
    return kinds, sides, pairs, _read_names(buffer, spans[:known])


def _free_slots(pairs_max: int) -> NDArray[np.int32]:
    """Return a hash table with room for as many pairs, and as many again that stay free."""
    return np.full(max(64, 1 << (2 * pairs_max - 1).bit_length()), -1, dtype=np.int32)


def _read_names(buffer: NDArray[np.uint8], spans: Integers) -> Names:
    def read(at: int, size: int) -> str | None:
        return None if size < 0 else buffer[at : at + size].tobytes().decode()

    return [(read(*span[:2]), read(*span[2:])) for span in spans.tolist()]


@njit(cache=True, nogil=True)
def _scan(  # type: ignore[no-untyped-def]  # noqa: ANN202
    buffer, ends, line_bytes_max, slots,  # noqa: ANN001
    records, lines, present, kinds, sides, times_ns, trade_ids, floats, pairs, pair_spans,  # noqa: ANN001
    doubtful, counts,  # noqa: ANN001
):  # fmt: skip
    """Fill the columns of `Scanned`; return how many lines, pairs and doubtful lines there are."""
    rows = known = doubts = record = at = 0
    latest = -1
    found, values = np.empty(_WIDTH, dtype=np.int64), np.empty(floats.shape[0])
    while at < buffer.size:
        while at >= ends[record]:
            record += 1
        begin = at
        at = _skip_blanks(buffer, at)
        if buffer[at] == _FEED:
            at += 1
            continue
        at, plain = _read_line(buffer, at, found, values)
        pair = -1
        if plain and at - begin <= line_bytes_max:
            # Ticks of one name often stand together.
            if latest < 0 or not _same(buffer, found, pair_spans, latest):
                latest = _find_pair(buffer, found, slots, pair_spans, known)
            pair = latest
            known = max(known, pair + 1)
        while buffer[at] != _FEED:
            at += 1
        if pair >= 0:
            records[rows], lines[rows], pairs[rows] = record, counts[record], pair
            kinds[rows], sides[rows] = found[_KIND], found[_SIDE]
            times_ns[rows], trade_ids[rows] = found[_TIME], found[_TRADE_ID]
            present[rows] = found[_PRESENT]
            for row in range(values.size):
                floats[row, rows] = values[row]
            rows += 1
        else:
            doubtful[doubts, 0], doubtful[doubts, 1] = record, counts[record]
            doubtful[doubts, 2], doubtful[doubts, 3] = begin, at
            doubts += 1
        counts[record] += 1
        at += 1
    return rows, known, doubts


@njit(cache=True, nogil=True)
def _scan_texts(buffer, places, slots, present, kinds, sides, pairs, pair_spans):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Fill what `scan_texts` returns; return how many pairs there are."""
    found = np.empty(_WIDTH, dtype=np.int64)
    known = 0
    latest = -1
    for row in range(present.size):
        kinds[row], sides[row] = -1, 0
        if present[row] >> _KIND_FIELD & 1:
            kinds[row] = _find_word(buffer, places[0, row], places[0, row + 1], _KIND_WORDS)
        if present[row] >> _SIDE_FIELD & 1:
            sides[row] = _find_word(buffer, places[3, row], places[3, row + 1], _SIDE_WORDS)
        for number, name, field in ((1, _VENUE, _VENUE_FIELD), (2, _SYMBOL, _SYMBOL_FIELD)):
            begin, end = places[number, row], places[number, row + 1]
            found[name] = begin
            found[name + _LENGTH] = end - begin if present[row] >> field & 1 else -1
        if latest < 0 or not _same(buffer, found, pair_spans, latest):
            latest = _find_pair(buffer, found, slots, pair_spans, known)
        pairs[row] = latest
        known = max(known, latest + 1)
    return known


@njit(cache=True, nogil=True)
def _read_line(buffer, at, found, values):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Read the object that begins at `at`; return where reading ended, and whether the line is plain."""
    for place in range(found.size):
        found[place] = 0
    for row in range(values.size):
        values[row] = 1.0
    found[_TRADE_ID] = found[_VENUE + _LENGTH] = found[_SYMBOL + _LENGTH] = -1
    seen = 0
    field = -1
    if buffer[at] != _OPEN:
        return at, False
    while True:
        at, field = _read_field(buffer, _skip_blanks(buffer, at + 1), field + 1)
        if field < 0 or seen >> field & 1:
            return at, False
        seen |= 1 << field
        at = _skip_blanks(buffer, at)
        if buffer[at] != _COLON:
            return at, False
        end = _read_into(buffer, _skip_blanks(buffer, at + 1), field, found, values)
        if end < 0:
            return at, False
        at = _skip_blanks(buffer, end)
        if buffer[at] != _COMMA:
            break
    if buffer[at] != _CLOSE or found[_PRESENT] & _NEEDED != _NEEDED:
        return at, False
    at = _skip_blanks(buffer, at + 1)
    return at, buffer[at] == _FEED


@njit(cache=True, nogil=True)
def _read_into(buffer, at, field, found, values):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Note the value of `field` that begins at `at`; return the place behind it, or -1 if not plain."""
    role = _ROLES[field]
    if buffer[at] == _LOWER_N:
        # Null counts as absent, where absent is allowed.
        return at + 4 if role > _TIME and _matches(buffer, at, _NULL_WORD, 0) else -1
    end, whole, exact = _read_value(buffer, at, role)
    if role >= _FIRST_FLOAT:
        values[role - _FIRST_FLOAT] = exact
    else:
        found[role] = whole
        if role in (_VENUE, _SYMBOL):
            found[role + _LENGTH] = end - at - 2
    found[_PRESENT] |= 1 << field
    return end


@njit(cache=True, nogil=True)
def _read_field(buffer, at, guess):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return the place behind the name at `at` and which field it is, probably `guess`; -1 for none."""
    if (
        guess < _FIELD_WORDS.shape[0]
        and buffer[at] == _QUOTE
        and _matches(buffer, at + 1, _FIELD_WORDS, guess)
    ):
        end = at + 1 + _FIELD_WORDS[guess, 0]
        if buffer[end] == _QUOTE:
            return end + 1, guess
    end = _end_of_text(buffer, at)
    if end < 0:
        return at, -1
    return end, _find_word(buffer, at + 1, end - 1, _FIELD_WORDS)


@njit(cache=True, nogil=True)
def _read_value(buffer, at, role):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return the place behind the value at `at`, or -1 if it is not plain, and what it says."""
    if role >= _FIRST_FLOAT:
        end, digits, power = _read_number(buffer, at)
        if end < 0 or digits > _EXACT_MAX or power < -22 or power > 22:
            return -1, 0, 0.0
        exact = float(digits)
        return end, 0, exact / _POWERS[-power] if power < 0 else exact * _POWERS[power]
    if role in (_TIME, _TRADE_ID):
        end, digits = _read_digits(buffer, at, 0)
        return (-1 if buffer[at] == _ZERO and end > at + 1 else end), digits, 0.0
    end = _end_of_text(buffer, at)
    if end < 0 or role in (_VENUE, _SYMBOL):
        return end, at + 1, 0.0
    row = _find_word(buffer, at + 1, end - 1, _KIND_WORDS if role == _KIND else _SIDE_WORDS)
    return (-1 if row < 0 else end), row, 0.0


@njit(cache=True, nogil=True)
def _read_number(buffer, at):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return the place behind an unsigned number, its digits and its power of ten; -1 if none is there."""
    end, digits = _read_digits(buffer, at, 0)
    if end < 0 or (buffer[at] == _ZERO and end > at + 1):
        return -1, 0, 0
    power = 0
    if buffer[end] == _POINT:
        begin = end + 1
        end, digits = _read_digits(buffer, begin, digits)
        power = begin - end
        if end < 0:
            return -1, 0, 0
    if buffer[end] == _LOWER_E or buffer[end] == _UPPER_E:
        begin = end + 1
        signed = buffer[begin] == _PLUS or buffer[begin] == _MINUS
        end, exponent = _read_digits(buffer, begin + signed, 0)
        if end < 0 or exponent > 99:
            return -1, 0, 0
        power += -exponent if buffer[begin] == _MINUS else exponent
    return end, digits, power


@njit(cache=True, nogil=True)
def _read_digits(buffer, at, digits):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return the place behind the digits at `at` and the number they continue; -1 for none or too many."""
    begin = at
    while _ZERO <= buffer[at] <= _NINE:
        if digits > _BEFORE_LAST_DIGIT_MAX:
            return -1, 0
        digits = digits * 10 + (int(buffer[at]) - _ZERO)
        at += 1
    return (at if at > begin else -1), digits


@njit(cache=True, nogil=True)
def _skip_blanks(buffer, at):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    while buffer[at] == _SPACE or buffer[at] == _TAB or buffer[at] == _RETURN:
        at += 1
    return at


@njit(cache=True, nogil=True)
def _end_of_text(buffer, at):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return the place behind the plain text whose quote is at `at`, or -1."""
    if buffer[at] != _QUOTE:
        return -1
    at += 1
    while buffer[at] != _QUOTE:
        if buffer[at] < _SPACE or buffer[at] > _ASCII_MAX or buffer[at] == _BACKSLASH:
            return -1
        at += 1
    return at + 1


@njit(cache=True, nogil=True)
def _matches(buffer, at, words, row):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return whether row `row` of `words` stands at `at`."""
    for place in range(words[row, 0]):  # noqa: SIM110  # a generator is slower here
        if buffer[at + place] != words[row, 1 + place]:
            return False
    return True


@njit(cache=True, nogil=True)
def _find_word(buffer, begin, end, words):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return the row of `words` that stands from `begin` to `end`, or -1."""
    for row in range(words.shape[0]):
        if words[row, 0] == end - begin and _matches(buffer, begin, words, row):
            return row
    return -1


@njit(cache=True, nogil=True)
def _find_pair(buffer, found, slots, pair_spans, known):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return the number of the venue and symbol in `found`, a new one where they are new; -1 if full."""
    # FNV-1a; the product wraps, as it should.
    code = found[_VENUE + _LENGTH] * 31 + found[_SYMBOL + _LENGTH]
    for name in (_VENUE, _SYMBOL):
        for at in range(found[name], found[name] + found[name + _LENGTH]):
            code = (code ^ buffer[at]) * 0x100000001B3
    slot = (code ^ (code >> 29)) & (slots.size - 1)
    while slots[slot] >= 0:
        if _same(buffer, found, pair_spans, slots[slot]):
            return slots[slot]
        slot = (slot + 1) & (slots.size - 1)
    if known == pair_spans.shape[0]:
        return -1
    slots[slot] = known
    for column, name in enumerate((_VENUE, _SYMBOL)):
        pair_spans[known, 2 * column] = found[name]
        pair_spans[known, 2 * column + 1] = found[name + _LENGTH]
    return known


@njit(cache=True, nogil=True)
def _same(buffer, found, pair_spans, pair):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return whether `pair` has the venue and symbol in `found`."""
    # Symbols differ more often than venues.
    for column, name in ((1, _SYMBOL), (0, _VENUE)):
        length = found[name + _LENGTH]
        if length != pair_spans[pair, 2 * column + 1]:
            return False
        for place in range(length):
            if buffer[found[name] + place] != buffer[pair_spans[pair, 2 * column] + place]:
                return False
    return True
