"""What the vote has to tell `model.events`: weights, scores and drift of its voters."""

from msgspec import Struct

from schemas.ids import derive_id
from schemas.models import ModelEventKind, ModelEventRecorded


class VoterFact(Struct, frozen=True, kw_only=True):
    """One fact about one voter; counts for bars that close at or after `effective_from_ns`."""

    model: str
    kind: ModelEventKind
    effective_from_ns: int
    reason: str
    weight_configured: float | None = None
    weight_effective: float | None = None
    scored_events: int | None = None
    log_loss: float | None = None


def build_event(
    fact: VoterFact, partition: int, version: str, content_hash: str
) -> ModelEventRecorded:
    """Return the record of `fact` about the `version` that voted in `partition`."""
    return ModelEventRecorded(
        id=derive_id(
            ModelEventRecorded.topic,
            f"{partition}/{fact.model}",
            fact.effective_from_ns,
            0,
            f"{fact.kind}/{fact.reason}",
        ),
        cause="",
        model=fact.model,
        kind=fact.kind,
        version=version,
        content_hash=content_hash,
        previous_version=version,
        partition=partition,
        effective_from_ns=fact.effective_from_ns,
        weight_configured=fact.weight_configured,
        weight_effective=fact.weight_effective,
        scored_events=fact.scored_events,
        log_loss=fact.log_loss,
        reason=fact.reason,
        event_time_ns=fact.effective_from_ns,
    )
