"""What the records say, kept for the checks that look across topics."""

from collections import defaultdict
from typing import Any, Generic, NamedTuple, TypeVar

from msgspec.structs import replace

from infra.audit.report import Check, Place
from infra.audit.ticks import Market
from infra.settings import Settings, settings_hash
from schemas.market import BarClosed, FeaturesComputed, InstrumentListed, TickLate
from schemas.operations import (
    ControlApplied,
    ControlCommanded,
    DeadLetterRecorded,
    SettingsPublished,
)
from schemas.signals import SignalEmitted
from schemas.trading import (
    DecisionMade,
    OrderFilled,
    OrderUpdated,
    OutcomeClosed,
    PositionChanged,
)

M = TypeVar("M")


class Fact(NamedTuple, Generic[M]):
    """A message with where it stands and the settings behind it."""

    place: Place
    message: M
    config: str


class Evidence:
    """Messages by topic, in log order."""

    def __init__(self, settings: Settings) -> None:
        """Use `settings` where no record says which ones counted."""
        self._fallback = settings
        self._settings: dict[str, Settings] = {}
        self._newest_config = ""
        self.listings: dict[Market, InstrumentListed] = {}
        self._every_listing: dict[Market, list[InstrumentListed]] = defaultdict(list)
        self.quoted: set[Market] = set()
        """Markets of which some bar has a quoted spread."""
        self.dead_letters: list[Fact[DeadLetterRecorded]] = []
        self.commands: list[Fact[ControlCommanded]] = []
        self.applied: list[Fact[ControlApplied]] = []
        self.bars: dict[str, int] = {}
        """Close by id."""
        self.bar_counts: dict[str, int] = defaultdict(int)
        """Bars by timeframe."""
        self.bar_configs: set[str] = set()
        self.features: set[str] = set()
        self.feature_counts: dict[str, int] = defaultdict(int)
        """Feature vectors by timeframe."""
        self.timeframes: set[str] = set()
        """Timeframes that some record names."""
        self.signals: list[Fact[SignalEmitted]] = []
        self.decisions: list[Fact[DecisionMade]] = []
        self.orders: list[Fact[OrderUpdated]] = []
        self.fills: list[Fact[OrderFilled]] = []
        self.positions: list[Fact[PositionChanged]] = []
        self.outcomes: list[Fact[OutcomeClosed]] = []

    def see(self, place: Place, message: Any, config: str) -> None:
        """Keep what later checks need of `message`."""
        match message:
            case BarClosed():
                self.bars[message.id] = message.close_time_ns
                self.bar_counts[message.timeframe] += 1
                self.bar_configs.add(config)
                self.timeframes.add(message.timeframe)
                if message.spread_bps_mean is not None:
                    self.quoted.add((message.venue, message.symbol))
            case FeaturesComputed():
                self.features.add(message.id)
                self.feature_counts[message.timeframe] += 1
                self.timeframes.add(message.timeframe)
            case SignalEmitted():
                # Votes are large, and they were checked when the signal was read.
                self.signals.append(Fact(place, replace(message, votes=[]), config))
            case InstrumentListed():
                self._see_listing(message)
            case SettingsPublished():
                self._see_settings(message)
            case TickLate():
                pass  # Compared while its partition is read.
            case _:
                facts = self._facts_of(message)
                if facts is not None:
                    facts.append(Fact(place, message, config))

    def _facts_of(self, message: Any) -> list[Any] | None:
        kept: dict[type, list[Any]] = {
            DeadLetterRecorded: self.dead_letters,
            ControlCommanded: self.commands,
            ControlApplied: self.applied,
            DecisionMade: self.decisions,
            OrderUpdated: self.orders,
            OrderFilled: self.fills,
            PositionChanged: self.positions,
            OutcomeClosed: self.outcomes,
        }
        return kept.get(type(message))

    def _see_listing(self, listing: InstrumentListed) -> None:
        market = market_of(listing)
        self._every_listing[market].append(listing)
        known = self.listings.get(market)
        if known is None or listing.valid_from_ns >= known.valid_from_ns:
            self.listings[market] = listing

    def listings_of(self, market: Market) -> list[InstrumentListed]:
        """Return every listing of `market`: no record of a fill says which one counted."""
        return self._every_listing[market]

    def _see_settings(self, published: SettingsPublished) -> None:
        self._newest_config = published.id
        self._settings[published.id] = Settings.model_validate_json(published.settings_json)

    def settings_of(self, config: str) -> Settings:
        """Return the settings behind a `config` header, else the newest published ones."""
        known = self._settings.get(config) or self._settings.get(self._newest_config)
        return known or self._fallback

    def knows(self, config: str) -> bool:
        """Return whether `config` names published settings."""
        return config in self._settings

    def bar_settings(self) -> tuple[Settings, list[str]]:
        """Return the settings behind the bars, and every timeframe that must have bars."""
        configs = sorted(self.bar_configs) or [self._newest_config]
        settings = self.settings_of(configs[0])
        wanted = set(settings.bars.timeframes) | self.timeframes
        wanted |= {
            strategy.timeframe for strategy in settings.strategies.values() if strategy.timeframe
        }
        wanted |= {model.timeframe for model in settings.models.values() if model.enabled}
        return settings, sorted(wanted)

    def one_lateness(self) -> bool:
        """Return whether all settings behind the bars have one lateness."""
        return len({self.settings_of(each).bars.lateness_ms for each in self.bar_configs}) <= 1

    def check_settings(self, check: Check, configs: dict[str, Place]) -> None:
        """Record every header that names settings which nobody published, and false hashes."""
        for config, place in sorted(configs.items()):
            check.rows += 1
            if not self.knows(config):
                rule = "header 'config' names published settings"
                check.violate(rule, place, config, "a record of ops.settings", "none")
        for config, settings in self._settings.items():
            check.require(
                "settings read back to their hash",
                Place(SettingsPublished.topic, 0, -1),
                config,
                config,
                settings_hash(settings),
            )


def market_of(listing: InstrumentListed) -> Market:
    """Return venue and symbol."""
    return listing.venue, listing.symbol
