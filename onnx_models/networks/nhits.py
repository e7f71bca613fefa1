"""N-HiTS: blocks that each look at a pooled window and forecast with few, interpolated knots.

C. Challu, K. Olivares, B. Oreshkin, F. Garza, M. Mergenthaler-Canseco, A. Dubrawski, *N-HiTS: Neural
Hierarchical Interpolation for Time Series Forecasting*, AAAI 2023. The forward pass is that of the
authors' implementation (`neuralforecast.models.NHITS`) for the same weights; a test holds them
together.
"""

import torch
from msgspec import Struct
from torch import Tensor, nn
from torch.nn import functional


class NhitsShape(Struct, frozen=True, kw_only=True):
    """Sizes of the stacks, one block each."""

    steps: int = 120
    horizon: int = 24
    channels: int = 2
    """Series beside the one that is forecast."""
    width: int = 256
    hidden_layers: int = 2
    """Layers of `width` units in a block, each with its activation."""
    pools: tuple[int, ...] = (8, 4, 1)
    """Steps that are pooled to their maximum before each block."""
    knots: tuple[int, ...] = (3, 6, 24)
    """Numbers from which each block's forecast is interpolated."""
    dropout: float = 0.1
    class_dropout: float = 0.2
    """Of the hidden units, from which the classes are read."""


class NhitsBlock(nn.Module):
    """One block: pools, predicts a backcast and a few knots, interpolates the knots linearly."""

    def __init__(self, shape: NhitsShape, pool: int, knots: int) -> None:
        super().__init__()
        self.steps, self.pool = shape.steps, pool
        pooled = -(-shape.steps // pool) * (1 + shape.channels)
        # The first layer has no activation of its own, as in the authors' implementation.
        self.enter = nn.Linear(pooled, shape.width)
        self.hidden = nn.ModuleList(
            nn.Linear(shape.width, shape.width) for _ in range(shape.hidden_layers)
        )
        self.dropout = nn.Dropout(shape.dropout)
        self.leave = nn.Linear(shape.width, shape.steps + knots)
        self.register_buffer("interpolation", interpolate_linearly(knots, shape.horizon))

    interpolation: Tensor

    def forward(self, residuals: Tensor, channels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return backcast (rows, steps), forecast (rows, horizon) and hidden units (rows, width).

        `residuals` (rows, steps) is newest first, `channels` (rows, channels, steps) oldest first.
        """
        together = torch.cat([residuals.unsqueeze(1), channels], dim=1)
        pooled = functional.max_pool1d(together, self.pool, self.pool, ceil_mode=True)
        # The reference lays the other channels out step by step behind the pooled residuals.
        beside = pooled[:, 1:].transpose(1, 2).flatten(1)
        hidden = self.enter(torch.cat([pooled[:, 0], beside], dim=1))
        for layer in self.hidden:
            hidden = self.dropout(torch.relu(layer(hidden)))
        theta = self.leave(hidden)
        return theta[:, : self.steps], theta[:, self.steps :] @ self.interpolation, hidden


class Nhits(nn.Module):
    """The blocks in a row: each forecasts what those before it left of the window."""

    def __init__(self, shape: NhitsShape) -> None:
        super().__init__()
        self.shape = shape
        self.blocks = nn.ModuleList(
            NhitsBlock(shape, pool, knots)
            for pool, knots in zip(shape.pools, shape.knots, strict=True)
        )

    @property
    def features(self) -> int:
        """Width of the second answer of `forward`."""
        return self.shape.width * len(self.blocks)

    def forward(self, series: Tensor, channels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the forecast (rows, horizon) and the blocks' hidden units (rows, features).

        `series` (rows, steps) and `channels` (rows, steps, channels), the oldest step first.
        """
        # Last step first by a constant order: a flip has no operator of its own in ONNX.
        residuals = series[:, list(range(self.shape.steps - 1, -1, -1))]
        beside = channels.transpose(1, 2)
        forecast = series[:, -1:].expand(-1, self.shape.horizon)
        seen = []
        for block in self.blocks:
            backcast, part, hidden = block(residuals, beside)
            residuals = residuals - backcast
            forecast = forecast + part
            seen.append(hidden)
        return forecast, torch.cat(seen, dim=1)


def interpolate_linearly(knots: int, horizon: int) -> Tensor:
    """Return the (knots, horizon) matrix of linear interpolation between the knots' centres.

    `torch.nn.functional.interpolate(mode="linear")` is a linear map; as a matrix it has a
    deterministic gradient on every device and is one product in ONNX.
    """
    unit = torch.eye(knots).unsqueeze(1)
    return functional.interpolate(unit, size=horizon, mode="linear").squeeze(1)
