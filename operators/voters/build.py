"""From settings to voters."""

from collections.abc import Callable, Mapping

from operators.vote import LabelRule
from operators.voters.base import Learner
from operators.voters.onnx_vote import OnnxVoter
from operators.voters.river_base import LearnerArchive, RiverVoter
from operators.voters.river_forest import RiverForestVoter
from operators.voters.river_hoeffding import RiverHoeffdingVoter
from operators.voters.river_softmax import RiverSoftmaxVoter
from schemas.features import FEATURE_SCHEMAS
from schemas.settings import ModelSettings

MODEL_SCHEMA = FEATURE_SCHEMAS["fs34"]
"""What models read: `fs64` has inputs without a source, so no vector of it is ever complete."""

_LEARNERS: dict[str, type[RiverVoter]] = {
    "logistic": RiverSoftmaxVoter,
    "hoeffding": RiverHoeffdingVoter,
    "forest": RiverForestVoter,
}


def build_served(settings: Mapping[str, ModelSettings], horizon_bars: int) -> list[OnnxVoter]:
    """Return the enabled voters that serve a model of the registry, sorted by name."""
    return [
        OnnxVoter(name, model_name(name, chosen), chosen.timeframe, horizon_bars, chosen.weight)
        for name, chosen in sorted(settings.items())
        if chosen.enabled and chosen.kind == "onnx"
    ]


def build_learners(
    settings: Mapping[str, ModelSettings],
    label: LabelRule,
    open_archive: Callable[[str], LearnerArchive] | None = None,
) -> list[Learner]:
    """Return the enabled voters that learn online, sorted by name.

    `open_archive` returns where the voter of that name, and no other, keeps what is too large for a
    snapshot: with a shared one the quickest would push out what the others still name.
    """
    return [
        _LEARNERS[chosen.learner](
            name,
            MODEL_SCHEMA,
            chosen.timeframe,
            label=label,
            warm_up_events=chosen.warm_up_events,
            weight=chosen.weight,
            archive=None if open_archive is None else open_archive(name),
        )
        for name, chosen in sorted(settings.items())
        if chosen.enabled and chosen.kind == "river"
    ]


def model_name(voter: str, settings: ModelSettings) -> str:
    """Return the name in the registry of a voter's model."""
    return settings.artefact or voter
