"""From settings to machines: the one place where operators meet what they need from outside."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from urllib.parse import quote

from dataflows.known_models import KnownModels
from dataflows.lanes import Lane, OpenedSignals
from dataflows.registry import open_registry
from infra.learner_files import LearnerFiles
from infra.models.loading import RegistryLoader
from infra.sessions import ALWAYS_OPEN, load_sessions
from infra.settings import Settings
from operators.bars import BarMachine, BarState
from operators.council import Council
from operators.features import FeatureMachine, Indicator
from operators.model_schedule import ModelSchedule
from operators.portfolio import Portfolio
from operators.regime import INDICATORS, RegimeMachine, RegimeRule, RegimeState
from operators.screen import ScreenState, TickScreen
from operators.sessions import SessionTable
from operators.signals import SignalMachine, SignalState
from operators.strategies import build_strategies, required_indicators
from operators.vote import build_rule
from operators.voters import build_learners, build_served
from schemas.features import FEATURE_SCHEMAS, FeatureSchema
from schemas.instruments import InstrumentBook
from schemas.models import ModelEventRecorded
from schemas.operations import AlertRaised


class SessionLibrary(Mapping[str, SessionTable]):
    """Sessions of every calendar that exchange-calendars knows, loaded when first asked for."""

    def __init__(self) -> None:
        self._tables: dict[str, SessionTable] = {}

    def __getitem__(self, calendar: str) -> SessionTable:
        if calendar == ALWAYS_OPEN:
            raise KeyError(calendar)
        if calendar not in self._tables:
            self._tables |= load_sessions([calendar], SessionTable)
        return self._tables[calendar]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tables)

    def __len__(self) -> int:
        return len(self._tables)


def used_timeframes(settings: Settings) -> tuple[str, ...]:
    """Return the timeframes for which features are computed: those that a voter declares."""
    declared = {strategy.timeframe for strategy in build_strategies(settings.strategies)}
    declared |= {model.timeframe for model in settings.models.values() if model.enabled}
    return tuple(sorted(declared))


def build_lane(
    settings: Settings,
    book: InstrumentBook,
    observe: Callable[[str, int], None],
    *,
    known: Mapping[int, KnownModels] | None = None,
    learners: Path | None = None,
    marks_progress: bool = False,
) -> Lane:
    """Return how the machines of a lane are built; models and sessions are loaded once.

    Args:
        settings: what decides.
        book: the instruments.
        observe: counts what happened, by name.
        known: what the log says about the models of each partition; nothing without a log.
        learners: folder for what the online learners keep outside of snapshots; None keeps it there.
        marks_progress: whether a following flow needs to know how far the bars are complete.

    Raises:
        SettingsError, ValueError: A strategy, model or timeframe does not fit; names the setting.
    """
    sessions = SessionLibrary()
    lateness_ns = settings.bars.lateness_ms * 1_000_000
    timeframes = tuple(sorted({*settings.bars.timeframes, *used_timeframes(settings)}))

    def build_screen(partition: int, state: ScreenState | None) -> TickScreen:
        return TickScreen(partition, lateness_ns, state)

    def build_bars(partition: int, state: BarState | None) -> BarMachine:
        return BarMachine(partition, timeframes, sessions, state)

    return Lane(
        book=book,
        build_screen=build_screen,
        build_bars=build_bars,
        build_features=partial(_build_features, settings),
        build_signals=_signals_builder(settings, known or {}, learners),
        build_regimes=_build_regimes,
        published_schema=_schema(settings),
        feature_timeframes=used_timeframes(settings),
        marks_progress=marks_progress,
        observe=observe,
    )


def _schema(settings: Settings) -> FeatureSchema:
    return FEATURE_SCHEMAS[settings.features.schema_name]


def _build_features(settings: Settings) -> FeatureMachine:
    names = required_indicators(build_strategies(settings.strategies))
    own = (Indicator(name) for name in names)
    return FeatureMachine(_schema(settings), (*own, *INDICATORS))


def _build_regimes(state: RegimeState | None) -> RegimeMachine:
    # No model of the regime was surely better than the rule, so nothing else may call one.
    machine = RegimeMachine(RegimeRule())
    if state is not None:
        machine.state = state
    return machine


def _signals_builder(
    settings: Settings, known: Mapping[int, KnownModels], learners: Path | None
) -> Callable[[int, SignalState | None], OpenedSignals]:
    """Return what opens the signals of a partition; the numbers of the vote are checked now."""
    loader = RegistryLoader(partial(open_registry, settings))
    rule = build_rule(settings.vote)
    served = build_served(settings.models, settings.vote.horizon_bars)
    names = sorted({one.model for one in served})

    def build_signals(partition: int, state: SignalState | None) -> OpenedSignals:
        strategies = build_strategies(settings.strategies)
        online = build_learners(settings.models, rule.label, _archives(learners, partition))
        if not (served or online):
            return _open_signals(SignalMachine(strategies), state, [])
        told = known.get(partition, KnownModels())
        schedule = ModelSchedule(
            partition, names, loader, told.events, told.not_before_ns, told.alerts
        )
        if state is not None and state.council is not None:
            schedule.state = state.council.newest_ns
        # What serves must be known before the vote begins: it tells whom to trust.
        records = schedule.start(told.commands)
        council = Council(partition, served, online, schedule, settings.vote)
        return _open_signals(SignalMachine(strategies, council), state, records)

    return build_signals


def _archives(learners: Path | None, partition: int) -> Callable[[str], LearnerFiles] | None:
    """Return what opens the files of a learner by its name; each has a folder of its own."""
    if learners is None:
        return None
    lane = learners / f"{partition:04d}"
    return lambda voter: LearnerFiles(lane / f"of_{quote(voter, safe='')}")


def _open_signals(
    machine: SignalMachine,
    state: SignalState | None,
    records: list[ModelEventRecorded | AlertRaised],
) -> OpenedSignals:
    if state is not None:
        machine.state = state
    return OpenedSignals(machine=machine, records=records)


def adopt_settings(settings: Settings, portfolio: Portfolio) -> None:
    """Put a resumed account under the limits and venue rules of now."""
    portfolio.adopt(
        settings.portfolio, settings.paper, settings.vote, models_enabled=_models_enabled(settings)
    )


def build_portfolio(settings: Settings, partitions: list[int]) -> Portfolio:
    """Return the account's engine; it waits for every one of `partitions`."""
    return Portfolio(
        settings.account,
        partitions,
        settings.portfolio,
        settings.paper,
        settings.vote,
        models_enabled=_models_enabled(settings),
    )


def _models_enabled(settings: Settings) -> bool:
    return any(model.enabled for model in settings.models.values())
