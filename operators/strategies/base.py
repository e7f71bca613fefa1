"""What a rule strategy declares, and how the modules of this folder are found and built."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import cached_property
from hashlib import sha256
from importlib import import_module
from inspect import isabstract
from pkgutil import iter_modules
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.features import FEATURES
from schemas.settings import StrategySettings, Timeframe

BAR_COLUMNS = ("open", "high", "low", "close", "volume")
"""Columns of the bar itself that a rule may use; prices, and volume in base units."""

VOTE_COLUMNS = (
    "ensemble_buy",
    "ensemble_sell",
    "ensemble_edge_bps",
    "ensemble_threshold_bps",
    "ensemble_agreeing",
)
"""Columns that the vote adds to a bar: pooled probabilities, expected edge of buying after costs and
what it must exceed, and how many voters with a standing lean to buy; NaN where there is no opinion."""

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
Bars = Mapping[str, FloatArray]
"""Float64 columns by name, NaN where missing; one value per bar."""


class StrategyParameters(BaseModel):
    """Numbers of a rule: frozen, finite, in range, and an unknown name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    horizon_bars: int = Field(default=24, ge=1)
    """Bars for which an entry is meant to matter; told in the signal, enforced by nobody."""


P = TypeVar("P", bound=StrategyParameters)
"""The parameters of one strategy."""


class Strategy(ABC, Generic[P]):
    """A rule over completed bars: arithmetic on their columns, features and indicators.

    Every method sees float64 columns by name: `BAR_COLUMNS`, the features of `schemas.features` and
    the indicators that `operators.features` knows by name (`prior_high_20`). A value is that of one
    closed bar, so an ATR that includes that bar's own range looks at nothing later than the
    decision; a method combines columns and never values of different bars. Nothing is declared
    twice: what a strategy needs is what its methods ask for, so each asks for the same every time.

    A subclass sets the four class attributes and the abstract methods; it holds no state, and it is
    long only: an entry buys, an exit sells what the entry bought.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    default_timeframe: ClassVar[Timeframe]
    parameters_type: ClassVar[type[StrategyParameters]]

    def __init__(self, parameters: P | None = None, timeframe: Timeframe | None = None) -> None:
        chosen: Any = self.parameters_type() if parameters is None else parameters
        self.parameters: P = chosen
        self.timeframe: Timeframe = timeframe or self.default_timeframe

    @abstractmethod
    def entry(self, bars: Bars) -> BoolArray:
        """Return on which bars to ask to buy."""

    @abstractmethod
    def exit(self, bars: Bars) -> BoolArray:
        """Return on which bars to ask to sell what was bought."""

    @abstractmethod
    def stop_price(self, bars: Bars) -> FloatArray:
        """Return the protective stop that comes with an entry on each bar (price)."""

    def target_price(self, bars: Bars) -> FloatArray | None:  # noqa: ARG002
        """Return the profit target that comes with an entry on each bar (price), if any."""
        return None

    def trail_distance(self, bars: Bars) -> FloatArray | None:  # noqa: ARG002
        """Return how far a stop trails the best price since entry (price), if it trails."""
        return None

    @abstractmethod
    def reason_entry(self, row: Mapping[str, float]) -> str:
        """Return why `row` is an entry, with its numbers; `stop_price` and the like are in `row`."""

    @abstractmethod
    def reason_exit(self, row: Mapping[str, float]) -> str:
        """Return why `row` is an exit, with its numbers."""

    @cached_property
    def entry_inputs(self) -> tuple[str, ...]:
        """Columns without which an entry, its stop, target or trail cannot be judged, sorted."""
        return _asked_by(self.entry, self.stop_price, self.target_price, self.trail_distance)

    @cached_property
    def exit_inputs(self) -> tuple[str, ...]:
        """Columns without which an exit cannot be judged, sorted."""
        return _asked_by(self.exit)

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Every column that the strategy looks at, sorted."""
        return tuple(sorted({*self.entry_inputs, *self.exit_inputs}))

    @cached_property
    def indicators(self) -> tuple[str, ...]:
        """Inputs that the feature kernel adds, sorted: neither bar, nor feature, nor vote."""
        given = {*BAR_COLUMNS, *FEATURES, *VOTE_COLUMNS}
        return tuple(one for one in self.inputs if one not in given)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 (hex) over name, version, timeframe and parameters as canonical JSON."""
        content = {
            "name": self.name,
            "version": self.version,
            "timeframe": self.timeframe,
            "parameters": self.parameters.model_dump(mode="json"),
        }
        return sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


def number(value: float) -> str:
    """Return `value` for a reason: eight significant digits, without trailing zeros."""
    return f"{value:.8g}"


class _AskedColumns(dict[str, FloatArray]):
    """Bars without a number in them that remember which columns were looked at."""

    def __missing__(self, name: str) -> FloatArray:
        column = self[name] = np.empty(0)
        return column


def _asked_by(*methods: Callable[[Bars], object]) -> tuple[str, ...]:
    asked = _AskedColumns()
    for method in methods:
        method(asked)
    return tuple(sorted(asked))


def discover_strategies() -> dict[str, type[Strategy[Any]]]:
    """Return every strategy class that a module of this package defines, by name, sorted.

    Raises `ValueError` if two classes share a name.
    """
    package = import_module(__package__ or "operators.strategies")
    found: dict[str, type[Strategy[Any]]] = {}
    for module in sorted(one.name for one in iter_modules(package.__path__)):
        members = vars(import_module(f"{package.__name__}.{module}")).values()
        for member in members:
            if not _is_strategy(member) or member.__module__ != f"{package.__name__}.{module}":
                continue
            if member.name in found:
                msg = (
                    f"strategy name must belong to one class; found {member.name!r} in "
                    f"{found[member.name].__module__} and {member.__module__}; rename one"
                )
                raise ValueError(msg)
            found[member.name] = member
    return dict(sorted(found.items()))


def _is_strategy(member: object) -> bool:
    return isinstance(member, type) and issubclass(member, Strategy) and not isabstract(member)


def build_strategies(settings: Mapping[str, StrategySettings]) -> list[Strategy[Any]]:
    """Return the enabled strategies of `settings`, sorted by name.

    Raises `ValueError` for a name that no module defines, or for a parameter that is unknown or out
    of range, be the strategy enabled or not.
    """
    known = discover_strategies()
    built = []
    for name, chosen in sorted(settings.items()):
        if name not in known:
            nearest = get_close_matches(name, known, n=1, cutoff=0.0)[0]
            msg = (
                f"strategy must be one of {', '.join(known)}; found {name!r}; did you mean "
                f"{nearest!r}"
            )
            raise ValueError(msg)
        strategy = _build(known[name], chosen)
        if chosen.enabled:
            built.append(strategy)
    return built


def _build(strategy: type[Strategy[Any]], chosen: StrategySettings) -> Strategy[Any]:
    try:
        parameters = strategy.parameters_type.model_validate(chosen.parameters)
    except ValidationError as e:
        raise ValueError(_describe(strategy, e)) from e
    return strategy(parameters, chosen.timeframe)


def _describe(strategy: type[Strategy[Any]], error: ValidationError) -> str:
    first = error.errors()[0]
    path = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = strategy.parameters_type.model_fields
        nearest = get_close_matches(path, known, n=1, cutoff=0.0)[0]
        return (
            f"parameter of strategy {strategy.name!r} must be one of {', '.join(known)}; found "
            f"{path!r}; did you mean {nearest!r}"
        )
    subject = f"parameter {path!r}" if path else "parameters"
    rule = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return (
        f"{subject} of strategy {strategy.name!r}; {rule}; found {first['input']!r}; correct the "
        f"setting"
    )


def required_indicators(strategies: Iterable[Strategy[Any]]) -> tuple[str, ...]:
    """Return the names of all indicators that `strategies` need, each once, sorted."""
    return tuple(sorted({name for strategy in strategies for name in strategy.indicators}))
