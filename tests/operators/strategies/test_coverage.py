"""Every line of every strategy is run by its golden rows."""

import dis
import sys
from inspect import getmodule
from pathlib import Path
from types import CodeType

import pytest

from operators.strategies import discover_strategies
from tests.operators.strategies.golden_rows import assert_case, build, load_cases

REFUSED = {"rsi_mean_reversion": {"rsi_entry_max": 90}, "ma_crossover": {"fast_bars": 60}}
"""Parameters that contradict each other, of the strategies that look for it."""


def lines_of(code: CodeType) -> set[int]:
    """Return the lines of a function's body, those of nested functions included."""
    own = {line for _, line in dis.findlinestarts(code) if line and line != code.co_firstlineno}
    nested = [lines_of(one) for one in code.co_consts if isinstance(one, CodeType)]
    return own.union(*nested)


def run_traced(filename: str, action) -> set[int]:
    seen: set[int] = set()

    def trace(frame, event, arg):
        if frame.f_code.co_filename != filename:
            return None
        seen.add(frame.f_lineno)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return seen


@pytest.mark.acceptance("S-166", criterion="Coverage gate per strategy module: 100 % of its lines")
@pytest.mark.parametrize("name", sorted(discover_strategies()))
def test_golden_rows_run_every_line_of_the_strategy(name, measured):
    module = getmodule(discover_strategies()[name])
    filename = module.__file__
    source = compile(Path(filename).read_text(), filename, "exec")
    classes = [one for one in source.co_consts if isinstance(one, CodeType)]
    methods = [one for body in classes for one in body.co_consts if isinstance(one, CodeType)]
    expected = set().union(*(lines_of(method) for method in methods))

    def run_golden_rows():
        strategy = build(name)
        for case in load_cases(name):
            assert_case(strategy, case)
        if name in REFUSED:
            with pytest.raises(ValueError, match="must"):
                build(name, **REFUSED[name])

    missed = expected - run_traced(filename, run_golden_rows)
    measured(f"{name}: {len(expected) - len(missed)} of {len(expected)} lines")
    assert missed == set()
