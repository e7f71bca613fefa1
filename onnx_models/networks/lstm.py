"""LSTM: a recurrent net over the bars of a window, the plainest sequence model to compare with.

S. Hochreiter, J. Schmidhuber, *Long Short-Term Memory*, Neural Computation 9(8), 1997.
"""

from msgspec import Struct
from torch import Tensor, nn


class LstmShape(Struct, frozen=True, kw_only=True):
    """Sizes of the recurrent net."""

    steps: int = 120
    horizon: int = 24
    channels: int = 3
    width: int = 64
    class_dropout: float = 0.2
    """Of the last state, from which the classes are read."""


class Lstm(nn.Module):
    """One recurrent layer; its last state forecasts."""

    def __init__(self, shape: LstmShape) -> None:
        super().__init__()
        self.shape = shape
        self.recurrent = nn.LSTM(shape.channels, shape.width)
        self.forecast = nn.Linear(shape.width, shape.horizon)

    @property
    def features(self) -> int:
        """Width of the second answer of `forward`."""
        return self.shape.width

    def forward(self, channels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the forecast (rows, horizon) and the last state (rows, features).

        `channels` (rows, steps, channels), the oldest step first.
        """
        states, _ = self.recurrent(channels.transpose(0, 1))
        last = states[-1]
        return self.forecast(last), last
