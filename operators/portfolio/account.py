"""The portfolio: one account that acts on ticks, signals and controls in one event-time order."""

from collections import deque
from collections.abc import Sequence
from decimal import localcontext
from typing import Any

from msgspec import Struct

from operators.portfolio.checks import build_limits
from operators.portfolio.decisions import DecisionDesk
from operators.portfolio.exits import ExitOwner
from operators.portfolio.ledger import EXACT
from operators.portfolio.legs import Leg
from operators.portfolio.matching import Matching
from operators.portfolio.paper_venue import PaperVenue
from operators.portfolio.records import Recorder
from operators.portfolio.state import AccountState
from operators.portfolio.timeline import Horizon, SignalKey, Timeline
from schemas.batches import AccountInput, ControlReceived
from schemas.instruments import InstrumentBook
from schemas.operations import ACCOUNT_COMMANDS, Command, ControlCommanded
from schemas.settings import PaperSettings, PortfolioSettings, VoteSettings
from schemas.signals import SignalEmitted
from schemas.ticks import EVENT_TIME_MIN_NS, PROVENANCE_CODES

_CONTROL, _EXPIRY, _MARK, _SIGNAL, _TICK = range(5)
"""Kinds of events in the order in which they count at one event time."""

EventKey = tuple[int, int, str, str, int, str]
"""Event time, kind, venue, symbol, place among the symbol's ticks, strategy."""


class Portfolio:
    """Decides, fills, protects and books for one account.

    The records it returns depend on the inputs alone, not on how they were cut into calls or how
    the partitions were interleaved. Its state survives pickling.
    """

    def __init__(
        self,
        account: str,
        partitions: Sequence[int],
        portfolio: PortfolioSettings,
        paper: PaperSettings,
        vote: VoteSettings,
        *,
        models_enabled: bool,
    ) -> None:
        self._account = account
        self._recorder = Recorder(account)
        self._timeline = Timeline(partitions)
        self._state = AccountState(
            self._recorder, self._timeline, PaperVenue(paper), portfolio.starting_cash_usd
        )
        self._exits = ExitOwner(self._state)
        self._matching = Matching(self._state, self._exits)
        limits = build_limits(portfolio, vote, models_enabled=models_enabled)
        self._desk = DecisionDesk(self._state, self._exits, self._matching, limits)
        self._controls: list[tuple[int, ControlCommanded]] = []
        self._controls_seen: set[str] = set()
        self._worst_provenance = len(PROVENANCE_CODES) - 1
        self._leg_event: tuple[EventKey, Leg] | None = None

    def adopt(
        self,
        portfolio: PortfolioSettings,
        paper: PaperSettings,
        vote: VoteSettings,
        *,
        models_enabled: bool,
    ) -> None:
        """Go on under these limits and venue rules: a snapshot must not keep older ones in force."""
        self._state.venue = PaperVenue(paper)
        limits = build_limits(portfolio, vote, models_enabled=models_enabled)
        self._desk = DecisionDesk(self._state, self._exits, self._matching, limits)

    @property
    def state(self) -> AccountState:
        """What the account remembers, for metrics and tests."""
        return self._state

    def advance(self, inputs: Sequence[AccountInput], book: InstrumentBook) -> list[Struct]:
        """Take in what the partitions say and act on everything that no input can precede.

        Returns the records in the order in which they are caused.

        Raises:
            ValueError: An input contradicts a watermark, a partition or an instrument's decimals.
        """
        with localcontext(EXACT):
            for given in inputs:
                for control in given.controls:
                    self._accept_control(control)
            self._timeline.accept(inputs, book)
            horizon = self._timeline.horizon()
            if horizon is not None and horizon != self._timeline.passed:
                self._run(horizon)
        return self._recorder.drain()

    def __getstate__(self) -> dict[str, Any]:
        self._timeline.trim()
        return self.__dict__

    def _accept_control(self, given: ControlReceived) -> None:
        """Queue a command; one without an effective time counts from the next moment on."""
        command = given.command
        if command.account != self._account or command.id in self._controls_seen:
            return
        if command.command not in ACCOUNT_COMMANDS:
            return  # For the lanes: to the account it must be neither a halt nor a resume.
        through_ns = self._timeline.passed.through_ns
        effective_ns = given.effective_ns
        if effective_ns is None:
            # Nothing later than this has been acted on, so a replay can act on it at the same point.
            effective_ns = max(through_ns + 1, EVENT_TIME_MIN_NS, given.not_before_ns)
            self._recorder.control(command, effective_ns)
        elif effective_ns <= through_ns:
            msg = (
                f"command {command.id!r} must be given before event time {effective_ns!r} is passed"
                f"; found the account at {through_ns!r}; read the commands before the ticks"
            )
            raise ValueError(msg)
        self._controls_seen.add(command.id)
        self._controls.append((effective_ns, command))
        self._controls.sort(key=lambda entry: entry[0])

    def _run(self, horizon: Horizon) -> None:
        """Act on every event up to `horizon`, in order."""
        state = self._state
        state.horizon = horizon
        for leg in state.legs.values():
            state.find_leg_event(leg)
        signals = deque(self._timeline.due_signals(horizon))
        marks = deque(self._timeline.due_marks(horizon))
        while (event := self._next_event(horizon, signals, marks)) is not None:
            time_ns, kind = event[:2]
            state.roll_day(time_ns)
            if kind in {_TICK, _EXPIRY}:
                self._act_on_leg(time_ns, kind)
            elif kind == _SIGNAL:
                self._desk.on_signal(signals.popleft()[1])
            elif kind == _MARK:
                self._mark(*marks.popleft())
            else:
                self._apply(time_ns, self._controls.pop(0)[1])
        state.roll_day(horizon.through_ns)
        for leg in state.legs.values():
            state.see_ticks(leg, state.tape(leg).times.size)
            leg.cursor = 0
        self._timeline.pass_horizon(horizon)

    def _next_event(
        self,
        horizon: Horizon,
        signals: deque[tuple[SignalKey, SignalEmitted]],
        marks: deque[tuple[int, int]],
    ) -> EventKey | None:
        candidates: list[EventKey] = []
        if self._controls and self._controls[0][0] <= horizon.through_ns:
            candidates.append((self._controls[0][0], _CONTROL, "", "", 0, ""))
        if marks:
            candidates.append((marks[0][0], _MARK, "", "", 0, ""))
        if signals:
            candidates.append((signals[0][0][0], _SIGNAL, "", "", 0, ""))
        if self._state.legs_changed:
            self._leg_event = min(
                self._leg_events(horizon), default=None, key=lambda found: found[0]
            )
            self._state.legs_changed = False
        if self._leg_event is not None:
            candidates.append(self._leg_event[0])
        return min(candidates, default=None)

    def _leg_events(self, horizon: Horizon) -> list[tuple[EventKey, Leg]]:
        """Return the next tick and the next expiry of every leg."""
        found: list[tuple[EventKey, Leg]] = []
        for leg in self._state.legs.values():
            strategy, venue, symbol = leg.key
            if leg.entry.working and leg.expires_ns <= horizon.through_ns:
                found.append(((leg.expires_ns, _EXPIRY, venue, symbol, 0, strategy), leg))
            if leg.event_index >= 0:
                time_ns = int(self._state.tape(leg).times[leg.event_index])
                found.append(((time_ns, _TICK, venue, symbol, leg.event_index, strategy), leg))
        return found

    def _act_on_leg(self, time_ns: int, kind: int) -> None:
        assert self._leg_event is not None
        leg = self._leg_event[1]
        if kind == _TICK:
            self._matching.on_tick(leg, leg.event_index)
        else:
            self._end_entry(leg, time_ns, "the entry's lifetime ended")
        self._state.legs_changed = True

    def _end_entry(self, leg: Leg, time_ns: int, reason: str, cause: str = "") -> None:
        self._matching.cancel_entry(leg, time_ns, reason, cause)
        if leg.key in self._state.legs:
            self._state.see_ticks(leg, self._state.tape(leg).index_at(time_ns))
            self._state.find_leg_event(leg)

    def _apply(self, time_ns: int, command: ControlCommanded) -> None:
        """Halt or resume entries; exits and protection go on in both."""
        self._state.halted = command.command is Command.HALT
        if self._state.halted:
            for _, leg in sorted(self._state.legs.items(), key=lambda entry: entry[0]):
                if leg.entry.working:
                    self._end_entry(leg, time_ns, "entries are halted")

    def _mark(self, time_ns: int, provenance: int) -> None:
        """Record the account's worth, and where trailing stops have moved to."""
        state = self._state
        for _, leg in sorted(state.legs.items(), key=lambda entry: entry[0]):
            if leg.trail_units and leg.quantity:
                state.see_ticks(leg, state.tape(leg).index_at(time_ns))
                if self._exits.record_trail(leg, time_ns):
                    assert leg.stop is not None
                    account = state.ledger.legs[leg.key]
                    cause = leg.stop.last_update_id
                    self._recorder.position(leg, account, state.mark(time_ns), time_ns, cause)
        self._worst_provenance = min(self._worst_provenance, provenance)
        mark = state.mark(time_ns)
        self._recorder.account_mark(mark, state.ledger.realised, time_ns, self._worst_provenance)
