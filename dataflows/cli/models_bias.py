"""`quantstream models bias`: what every model, the pool and the threshold chose lately."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dataflows.cli.context import EnvironmentOption, settings_for
from dataflows.cli.output import JsonFlag, console, print_json, print_table, reporting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from operators.vote import ActionMix

COLUMNS = ("stage", "said", "SELL", "HOLD", "BUY", "abstained", "SELL of calls")


def register(app: typer.Typer) -> None:
    """Add the verb to the verbs of `models`."""
    app.command()(bias)


def bias(
    last: Annotated[int, typer.Option(min=1, help="Opinions to look at, the newest.")] = 1000,
    folder: Annotated[
        Path | None, typer.Option(file_okay=False, help="A backtest instead of an environment.")
    ] = None,
    environment: EnvironmentOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Count the actions at every stage of the vote, and name the first one that leans to a side.

    Reads what every model said about each of the last bars (`model.opinions`), signal or not. An
    action is what a model lifts most above its base rate. Stages are the models, the pooled opinion,
    and what the threshold leaves of it; one leans if more than 70 % of its calls (SELL or BUY, 30 at
    least) go one way; what the market did meanwhile is not subtracted. Exit code 0: counted, 1:
    nothing to count or no broker, 2: usage.
    """
    with reporting(as_json=as_json):
        from dataflows.bias import count_mixes, load_opinions, read_opinions  # noqa: PLC0415
        from operators.vote import find_biased_stage  # noqa: PLC0415

        opinions = (
            read_opinions(settings_for(environment), last)
            if folder is None
            else load_opinions(folder, last)
        )
        if not opinions:
            msg = (
                f"opinions must have been recorded to be counted; found 0 of {last}; run a dataflow "
                f"or a backtest with models until a bar of their timeframe has closed"
            )
            raise RuntimeError(msg)
        mixes = count_mixes(opinions)
        biased = find_biased_stage(mixes)
        if as_json:
            found = {"ok": True, "asked": last, "opinions": len(opinions), "biased": biased}
            print_json(found | {"stages": [_describe(mix) for mix in mixes]})
            return
        print_table(f"found {len(opinions)} of {last} opinions (PAPER)", COLUMNS, map(_row, mixes))
        console.print(_conclude(mixes, biased))


def _conclude(mixes: "Sequence[ActionMix]", biased: str | None) -> str:
    from operators.vote.ballots import CALLS_MIN  # noqa: PLC0415

    few = [f"{mix.stage} ({mix.calls})" for mix in mixes if mix.calls < CALLS_MIN]
    told = f"first stage that leans to one side: {biased}" if biased else "no stage leans to a side"
    unjudged = f"; fewer than {CALLS_MIN} calls, not judged: {', '.join(few)}" if few else ""
    return told + unjudged


def _row(mix: "ActionMix") -> tuple[object, ...]:
    shares = [_percent(count / mix.said if mix.said else None) for count in _counts(mix)]
    return (mix.stage, mix.said, *shares, mix.abstained, _percent(mix.sell_share))


def _describe(mix: "ActionMix") -> dict[str, Any]:
    counts = {name: getattr(mix, name) for name in ("stage", "sell", "hold", "buy", "abstained")}
    sell, hold, buy = (count / mix.said if mix.said else None for count in _counts(mix))
    shares = {"sell_share": sell, "hold_share": hold, "buy_share": buy}
    return counts | shares | {"calls": mix.calls, "sell_of_calls": mix.sell_share}


def _counts(mix: "ActionMix") -> tuple[int, int, int]:
    return mix.sell, mix.hold, mix.buy


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"
