"""What a rule strategy declares, and how the modules of this folder are found and built."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from hashlib import sha256
from importlib import import_module
from inspect import isabstract
from pkgutil import iter_modules
from typing import Any, ClassVar, Generic, TypeVar

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.features import FEATURES
from schemas.settings import StrategySettings, Timeframe

BAR_COLUMNS = ("open", "high", "low", "close", "volume")
"""Columns of the bar itself that an expression may use; prices, and volume in base units."""


class StrategyParameters(BaseModel):
    """Numbers of a rule: frozen, finite, in range, and an unknown name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    horizon_bars: int = Field(default=24, ge=1)
    """Bars for which an entry is meant to matter; told in the signal, enforced by nobody."""


P = TypeVar("P", bound=StrategyParameters)
"""The parameters of one strategy."""


class Strategy(ABC, Generic[P]):
    """A rule over one completed bar: expressions over its columns, features and indicators.

    Every expression sees a row of float64 columns: `BAR_COLUMNS`, the features of
    `schemas.features` and the indicators that `operators.features` knows by name (`prior_high_20`).
    A row is a closed bar, so an ATR that includes that bar's own range looks at nothing later than
    the decision. Nothing is declared twice: what a strategy needs is read off its expressions.

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
    def entry(self) -> pl.Expr:
        """Return whether the bar asks to buy (boolean)."""

    @abstractmethod
    def exit(self) -> pl.Expr:
        """Return whether the bar asks to sell what was bought (boolean)."""

    @abstractmethod
    def stop_price(self) -> pl.Expr:
        """Return the protective stop that comes with an entry on this bar (price)."""

    def target_price(self) -> pl.Expr | None:
        """Return the profit target that comes with an entry on this bar (price), if any."""
        return None

    def trail_distance(self) -> pl.Expr | None:
        """Return how far a stop trails the best price since entry (price), if it trails."""
        return None

    @abstractmethod
    def reason_entry(self, row: Mapping[str, float]) -> str:
        """Return why `row` is an entry, with its numbers; `stop_price` and the like are in `row`."""

    @abstractmethod
    def reason_exit(self, row: Mapping[str, float]) -> str:
        """Return why `row` is an exit, with its numbers."""

    @property
    def entry_inputs(self) -> tuple[str, ...]:
        """Columns without which an entry, its stop, target or trail cannot be judged, sorted."""
        asked = (self.entry(), self.stop_price(), self.target_price(), self.trail_distance())
        return _root_names(expression for expression in asked if expression is not None)

    @property
    def exit_inputs(self) -> tuple[str, ...]:
        """Columns without which an exit cannot be judged, sorted."""
        return _root_names([self.exit()])

    @property
    def inputs(self) -> tuple[str, ...]:
        """Every column that the strategy looks at, sorted."""
        return tuple(sorted({*self.entry_inputs, *self.exit_inputs}))

    @property
    def indicators(self) -> tuple[str, ...]:
        """Inputs that are neither in the bar nor a feature, sorted; the feature kernel adds them."""
        return tuple(one for one in self.inputs if one not in BAR_COLUMNS and one not in FEATURES)

    @property
    def content_hash(self) -> str:
        """SHA-256 (hex) over name, version, timeframe and parameters as canonical JSON."""
        content = {
            "name": self.name,
            "version": self.version,
            "timeframe": self.timeframe,
            "parameters": self.parameters.model_dump(mode="json"),
        }
        return sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()

    def conditions(self) -> tuple[pl.Expr, pl.Expr, pl.Expr]:
        """Return (entry holds, exit holds, stance is unknown), three booleans that are never null.

        A missing (null or not finite) input makes a condition false, and the stance unknown unless
        an exit holds. An entry without a stop strictly between 0 and the close is no entry but an
        unknown. An exit wins over an entry on the same bar.
        """
        entry_known, exit_known = _all_finite(self.entry_inputs), _all_finite(self.exit_inputs)
        protected = (self.stop_price() > 0.0) & (self.stop_price() < pl.col("close"))
        exit_holds = (exit_known & self.exit()).fill_null(value=False)
        wants_entry = (entry_known & exit_known & self.entry()).fill_null(value=False)
        entry_holds = wants_entry & protected.fill_null(value=False) & ~exit_holds
        known = entry_known & exit_known & (~wants_entry | protected.fill_null(value=False))
        return entry_holds, exit_holds, ~exit_holds & ~known


def number(value: float) -> str:
    """Return `value` for a reason: eight significant digits, without trailing zeros."""
    return f"{value:.8g}"


def _root_names(expressions: Iterable[pl.Expr]) -> tuple[str, ...]:
    names = {name for expression in expressions for name in expression.meta.root_names()}
    return tuple(sorted(names))


def _all_finite(names: tuple[str, ...]) -> pl.Expr:
    # Polars orders NaN above every number, so `volume > NaN` is false but `NaN > 65` is true:
    # readiness has to be asked, a comparison alone does not fail closed.
    return pl.all_horizontal(pl.col(name).is_finite().fill_null(value=False) for name in names)


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
