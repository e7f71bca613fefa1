"""What a network sees of a window: its price path in units of its own volatility, and its activity."""

import torch
from torch import Tensor, nn

RETURN_MIN = 1e-4
"""Log return that is added (in squares) to a window's deviation: one basis point is noise."""
RANGE_MIN = 1e-5
"""Added to the range of a bar before the logarithm."""
CONTEXT_MAX = 5.0
"""Standard deviations at which a number of the context is cut."""
SPANS = (1, 6, 24)
"""Bars over which the context looks back, beside the whole window."""


class WindowView(nn.Module):
    """Splits windows of the channels log_returns, relative_spread, volume_ratio.

    The path is `ln(close[t] / close[last])` in units of the deviation expected over `horizon` bars,
    so that 0 is the forecast of a random walk and instruments are comparable. What this takes away,
    the level of volatility, goes to the classes as context: a move pays only if it exceeds the cost.
    """

    def __init__(self, steps: int, horizon: int) -> None:
        super().__init__()
        self.steps, self.horizon = steps, horizon
        # A product with a constant matrix instead of a running sum: deterministic on every device.
        after = torch.triu(torch.ones(steps, steps), diagonal=1).T
        self.register_buffer("sum_after", -after)
        # The same for short means: how a kernel adds up a short row depends on its place in memory,
        # and so on the rows beside it.
        recent = torch.zeros(steps, len(SPANS) - 1)
        for number, span in enumerate(SPANS[1:]):
            recent[-span:, number] = 1.0 / span
        self.register_buffer("mean_of_recent", recent)
        count = 1 + 2 * (len(SPANS) + 1) + 2 * (len(SPANS) - 1) + 1
        self.register_buffer("context_mean", torch.zeros(count))
        self.register_buffer("context_deviation", torch.ones(count))

    sum_after: Tensor
    mean_of_recent: Tensor
    context_mean: Tensor
    context_deviation: Tensor

    @property
    def context_width(self) -> int:
        """Numbers per window in the context."""
        return len(self.context_mean)

    def forward(self, windows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return (path, activity, context, unit) of (rows, steps, 3) float32 windows.

        path (rows, steps), activity (rows, steps, 2): logarithm of range over deviation and of
        volume, context (rows, context_width), unit (rows, 1): log return of one unit of the path.
        """
        returns = windows[:, :, 0]
        deviation = torch.sqrt((returns**2).mean(1, keepdim=True) + RETURN_MIN**2)
        unit = deviation * self.horizon**0.5
        path = (returns @ self.sum_after) / unit
        ranges = torch.log(windows[:, :, 1].clamp(min=0.0) + RANGE_MIN) - torch.log(deviation)
        volumes = torch.log1p(windows[:, :, 2].clamp(min=0.0)) - 0.7
        activity = torch.stack([ranges, volumes], dim=2)
        raw = self._summarise(returns, deviation, path, activity)
        context = (raw - self.context_mean) / self.context_deviation
        return path, activity, context.clamp(-CONTEXT_MAX, CONTEXT_MAX), unit

    def standardise(self, windows: Tensor) -> None:
        """Set mean and deviation of the context to those of (rows, steps, 3) training windows."""
        self.context_mean.zero_()
        self.context_deviation.fill_(1.0)
        returns = windows[:, :, 0]
        deviation = torch.sqrt((returns**2).mean(1, keepdim=True) + RETURN_MIN**2)
        path, activity, _, _ = self(windows)
        raw = self._summarise(returns, deviation, path, activity)
        self.context_mean.copy_(raw.mean(0))
        self.context_deviation.copy_(raw.std(0) + 1e-3)

    def _summarise(
        self, returns: Tensor, deviation: Tensor, path: Tensor, activity: Tensor
    ) -> Tensor:
        parts = [torch.log(deviation), path[:, :1], activity.mean(1)]
        parts += [activity[:, -span:].mean(1) for span in SPANS]
        recent = torch.sqrt((returns**2) @ self.mean_of_recent + RETURN_MIN**2)
        for number, span in enumerate(SPANS[1:]):
            ratio = recent[:, number : number + 1] / deviation
            parts += [torch.log(ratio), path[:, -1 - span : -span]]
        return torch.cat(parts, dim=1)
