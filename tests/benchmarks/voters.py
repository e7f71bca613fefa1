"""Settings of the voters under load: rules alone, or with ONNX and River, at chosen timeframes."""

import json
import shutil
from pathlib import Path

from dataflows.parts import ARTEFACTS
from infra.settings import Settings
from schemas.settings import ModelSettings, StrategySettings, Timeframe


def voters_at(
    timeframe: Timeframe | None, *, models: bool, folder: Path
) -> dict[str, dict[str, object]]:
    """Return the sections `strategies` and `models`; None keeps every declared timeframe.

    At another timeframe than its own the shipped ONNX file runs under a copy of its card that names that
    timeframe: the cost of scoring is the same, its opinion means nothing.
    """
    base = Settings()
    strategies = {name: StrategySettings(timeframe=timeframe) for name in base.strategies}
    chosen: dict[str, ModelSettings] = {}
    for name, model in base.models.items():
        update: dict[str, object] = {"enabled": models}
        if timeframe is not None:
            update["timeframe"] = timeframe
            if model.kind == "onnx":
                update["artefact"] = str(_relabelled(ARTEFACTS / model.artefact, timeframe, folder))
        chosen[name] = model.model_copy(update=update)
    return {"strategies": dict(strategies), "models": dict(chosen)}


def _relabelled(artefact: Path, timeframe: str, folder: Path) -> Path:
    copy = folder / f"{artefact.name}_as_{timeframe}"
    if not copy.exists():
        shutil.copytree(artefact, copy)
        card = json.loads((copy / "card.json").read_text())
        (copy / "card.json").write_text(json.dumps(card | {"timeframe": timeframe}))
    return copy
