"""From settings to voters."""

from collections.abc import Mapping

from operators.voters.base import Voter
from operators.voters.onnx_vote import OnnxVoter, Scorer
from operators.voters.river_logistic import RiverLogisticVoter
from schemas.features import FEATURE_SCHEMAS
from schemas.settings import ModelSettings

MODEL_SCHEMA = FEATURE_SCHEMAS["fs34"]
"""What models read: `fs64` has inputs without a source, so no vector of it is ever complete."""


def build_voters(
    settings: Mapping[str, ModelSettings], scorers: Mapping[str, Scorer | str]
) -> list[Voter]:
    """Return the enabled voters of `settings`, sorted by name.

    `scorers` holds, per ONNX voter, the loaded model or the reason why there is none; a voter
    without either abstains too. Raises `ValueError` if a model does not fit its settings.
    """
    voters: list[Voter] = []
    for name, chosen in sorted(settings.items()):
        if not chosen.enabled:
            continue
        if chosen.kind == "river":
            voters.append(
                RiverLogisticVoter(
                    name,
                    MODEL_SCHEMA,
                    chosen.timeframe,
                    horizon_bars=chosen.horizon_bars,
                    warm_up_events=chosen.warm_up_events,
                    weight=chosen.weight,
                )
            )
            continue
        found = scorers.get(name, "no model is loaded")
        scorer, reason = (None, found) if isinstance(found, str) else (found, "")
        voters.append(
            OnnxVoter(name, scorer, MODEL_SCHEMA, chosen.timeframe, chosen.weight, reason)
        )
    return voters
