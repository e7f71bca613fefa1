"""Features of closed bars: a compiled recursion per series, its state, and the models' view of it."""

from operators.features.indicators import Indicator
from operators.features.kernel import COLUMNS
from operators.features.machine import FeatureMachine, batch_features, vector_matrix
from operators.features.mirror import Mirror
from operators.features.model_inputs import to_model_inputs
from operators.features.sequences import SequenceBatch, SequenceWindows, select_channels

__all__ = [
    "COLUMNS",
    "FeatureMachine",
    "Indicator",
    "Mirror",
    "SequenceBatch",
    "SequenceWindows",
    "batch_features",
    "select_channels",
    "to_model_inputs",
    "vector_matrix",
]
