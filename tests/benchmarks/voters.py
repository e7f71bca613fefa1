"""Settings of the voters under load: rules alone, or with models beside them, at chosen timeframes."""

import json
import shutil
from pathlib import Path
from typing import Literal

from dataflows.registry import open_registry
from infra.models.registry import Registry, Stamp
from infra.models.signing import create_key, load_signer
from infra.settings import Settings
from operators.voters import model_name
from schemas.settings import ModelSettings, RegistrySettings, StrategySettings, Timeframe

Chosen = Literal["none", "pair", "ensemble"]
"""Rules alone; beside one ONNX model and one River learner; beside all models, and pooled."""
_PAIR = ("lightgbm", "river_logistic")
_POOLED = "ensemble"
"""Strategy that trades the vote itself; without the whole ensemble the four rules decide."""


def describe_voters(models: Chosen) -> str:
    """Return who decides, for the name of a figure."""
    return {
        "none": "rules alone",
        "pair": "4 rules, one ONNX model, one River learner",
        "ensemble": "rules and the ensemble",
    }[models]


def voters_at(
    timeframe: Timeframe | None, *, models: Chosen, folder: Path
) -> dict[str, dict[str, object] | RegistrySettings]:
    """Return the sections `strategies`, `models` and `registry`; None keeps every declared timeframe.

    At another timeframe than its own a shipped model runs under a copy of its card that names that
    timeframe: the cost of scoring is the same, its opinion means nothing.
    """
    base = Settings()
    strategies = {
        name: StrategySettings(timeframe=timeframe, enabled=models == "ensemble" or name != _POOLED)
        for name in base.strategies
    }
    chosen: dict[str, ModelSettings] = {}
    registry = RegistrySettings()
    for name, model in base.models.items():
        enabled = models == "ensemble" or (models == "pair" and name in _PAIR)
        update: dict[str, object] = {"enabled": enabled}
        if timeframe is not None:
            update["timeframe"] = timeframe
            if model.kind == "onnx" and enabled:
                update["artefact"], registry = _relabel(model_name(name, model), timeframe, folder)
        chosen[name] = model.model_copy(update=update)
    return {"strategies": dict(strategies), "models": dict(chosen), "registry": registry}


def _relabel(model: str, timeframe: str, folder: Path) -> tuple[str, RegistrySettings]:
    """Put the shipped model under another timeframe into a registry of the bench; return its name."""
    shipped = open_registry(Settings())
    key = folder / "bench.pem"
    if not key.exists():
        create_key(key)
    signer = load_signer(key, "bench")
    keys = {signer.name: signer.public_text}
    registry, name = Registry(folder / "models", keys), f"{model}_as_{timeframe}"
    if not registry.store.exists():
        registry.create(signer)
    if name not in registry.read().models:
        copy = folder / name
        shutil.copytree(shipped.store.folder(model, shipped.read().model(model).active), copy)
        card = json.loads((copy / "card.json").read_text())
        (copy / "card.json").chmod(0o644)
        (copy / "card.json").write_text(
            json.dumps(card | {"timeframe": timeframe, "name": name, "gate": {"passed": True}})
        )
        registry.add(copy, Stamp(signer=signer, now_ns=0, reason="bench"))
    return name, RegistrySettings(root=str(registry.store.root), public_keys=keys)
