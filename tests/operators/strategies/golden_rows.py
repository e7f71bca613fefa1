"""Golden rows of a strategy: inputs of one bar, and what the rule must say about it."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from operators.bar_columns import BarColumns
from operators.strategies import Conditions, Strategy, build_strategies
from schemas.settings import StrategySettings

FOLDER = Path(__file__).parent / "golden"
PRICES = ("stop_price", "target_price", "trail_distance")


def load_cases(name: str) -> list[dict[str, Any]]:
    return json.loads((FOLDER / f"{name}.json").read_text())


def build(name: str, **parameters: Any) -> Strategy[Any]:
    return build_strategies({name: StrategySettings(parameters=parameters)})[0]


def judge(strategy: Strategy[Any], row: dict[str, float | None]) -> dict[str, Any]:
    """Return what the strategy says about one bar, in the form of a golden case."""
    columns = {key: np.array([value], dtype=np.float64) for key, value in row.items()}
    prices = {name: getattr(strategy, name)(columns) for name in PRICES}
    known = {name: float(price[0]) for name, price in prices.items() if price is not None}
    bars = BarColumns(1, columns | {"timeframe": [strategy.timeframe]})
    entry, leaves, unknown = Conditions([strategy]).evaluate(bars)[0, 0].tolist()
    found = {"entry": entry, "exit": leaves, "unknown": unknown}
    if entry:
        found |= known | {"reason": strategy.reason_entry(row | known)}
    elif leaves:
        found["reason"] = strategy.reason_exit(row)
    return found


def assert_case(strategy: Strategy[Any], case: dict[str, Any]) -> None:
    found = judge(strategy, case["row"])
    expected = {key: value for key, value in case.items() if key not in {"case", "row"}}
    if not expected["entry"]:
        assert not found.keys() & set(PRICES)
    else:
        assert {one for one in PRICES if one in found} == {one for one in PRICES if one in expected}
    assert {key: found[key] for key in expected} == expected
