"""PatchTST: a transformer over patches of one channel, normalised by its own mean and deviation.

Y. Nie, N. Nguyen, P. Sinthong, J. Kalagnanam, *A Time Series is Worth 64 Words: Long-term Forecasting
with Transformers*, ICLR 2023. The forward pass is that of `transformers.PatchTSTForPrediction`
(scaling std, batch normalisation before each sublayer, learned positions, GELU) for the same weights;
a test holds them together. Channels are independent: each is a row of its own.
"""

import torch
from msgspec import Struct
from torch import Tensor, nn

SCALE_MIN = 1e-5
"""Added to the variance of a channel, as in the reference."""


class PatchShape(Struct, frozen=True, kw_only=True):
    """Sizes of patches and encoder."""

    steps: int = 120
    horizon: int = 24
    patch: int = 16
    stride: int = 8
    width: int = 128
    """Numbers that stand for one patch (d_model)."""
    heads: int = 4
    layers: int = 3
    feed_forward: int = 128
    dropout: float = 0.2
    class_dropout: float = 0.5
    """Of the mean over the patches, from which the classes are read."""

    @property
    def patches(self) -> int:
        """Patches in a window; steps that fill none are left out at its beginning."""
        return (self.steps - self.patch) // self.stride + 1


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward net, each behind a normalisation and beside a shortcut."""

    def __init__(self, shape: PatchShape) -> None:
        super().__init__()
        self.shape = shape
        width = shape.width
        self.norm_attention = nn.BatchNorm1d(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.norm_forward = nn.BatchNorm1d(width)
        self.widen = nn.Linear(width, shape.feed_forward)
        self.narrow = nn.Linear(shape.feed_forward, width)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (rows * patches, width) tokens after one layer."""
        tokens = tokens + self.dropout(self._attend(self.norm_attention(tokens)))
        widened = nn.functional.gelu(self.widen(self.norm_forward(tokens)))
        return tokens + self.dropout(self.narrow(self.dropout(widened)))

    def _attend(self, tokens: Tensor) -> Tensor:
        patches, heads, width = self.shape.patches, self.shape.heads, self.shape.width
        parts = self.query_key_value(tokens).reshape(-1, patches, 3, heads, width // heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        likeness = (query * (width // heads) ** -0.5) @ key.transpose(-1, -2)
        mixed = torch.softmax(likeness, dim=-1) @ value
        return self.merge(mixed.transpose(1, 2).reshape(-1, width))


class PatchTst(nn.Module):
    """Normalises, cuts into patches, encodes, and forecasts from all encoded patches."""

    def __init__(self, shape: PatchShape) -> None:
        super().__init__()
        self.shape = shape
        self.embed = nn.Linear(shape.patch, shape.width)
        self.position = nn.Parameter(torch.randn(shape.patches, shape.width) * 0.02)
        self.layers = nn.ModuleList(EncoderLayer(shape) for _ in range(shape.layers))
        self.forecast = nn.Linear(self.features, shape.horizon)
        starts = torch.arange(shape.patches) * shape.stride
        starts += shape.steps - int(starts[-1]) - shape.patch
        self.register_buffer("patch_steps", starts[:, None] + torch.arange(shape.patch))

    patch_steps: Tensor

    @property
    def features(self) -> int:
        """Width of the second answer of `forward`."""
        return self.shape.patches * self.shape.width

    def forward(self, series: Tensor) -> tuple[Tensor, Tensor]:
        """Return the forecast (rows, horizon) and the encoded patches (rows, features).

        `series` (rows, steps), the oldest step first; the forecast is in units of the series.
        """
        mean = series.mean(1, keepdim=True)
        deviation = torch.sqrt(((series - mean) ** 2).mean(1, keepdim=True) + SCALE_MIN)
        patches = ((series - mean) / deviation)[:, self.patch_steps]
        tokens = (self.embed(patches) + self.position).reshape(-1, self.shape.width)
        for layer in self.layers:
            tokens = layer(tokens)
        encoded = tokens.reshape(-1, self.features)
        return self.forecast(encoded) * deviation + mean, encoded
