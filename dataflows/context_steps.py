"""What a lane observes around each symbol beside its votes: the market regime, on hourly bars."""

from dataflows.lanes import Lane
from operators.bar_columns import BarColumns
from operators.regime import RegimeState
from schemas.batches import Outgoing
from schemas.models import ContextObserved


class ContextObserver:
    """Observes the bars of one lane; bars of other timeframes cost it a comparison."""

    def __init__(self, lane: Lane, state: RegimeState | None) -> None:
        self._regimes = lane.build_regimes(state)

    @property
    def state(self) -> RegimeState:
        """Return what is remembered; pickle it before the next bars, it is not a copy."""
        return self._regimes.state

    def on_bars(self, partition: int, joined: BarColumns) -> list[Outgoing]:
        """Return the records about bars with their features: few, as a regime lasts."""
        observed = self._regimes.on_features(joined)
        if not observed:
            return []
        topic = ContextObserved.topic
        return [Outgoing(topic=topic, messages=list(observed), partition=partition)]
