"""A sequence network as a classifier of many instruments, with its own forecast as return head."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from onnx_models.networks.lstm import Lstm, LstmShape
from onnx_models.networks.nhits import Nhits, NhitsShape
from onnx_models.networks.patchtst import PatchShape, PatchTst
from onnx_models.networks.views import WindowView

CLASSES = 3
_CONTEXT_UNITS = 32

Feed = Callable[[Tensor, Tensor], tuple[Tensor, ...]]
"""What of (path, activity) the body reads."""


class SequenceClassifier(nn.Module):
    """A view of the window, a body that forecasts its path, and the classes beside the forecast.

    The classes are read from what the body forecasts with, and from the context that the view took
    out of the path. An untrained classifier answers the prior of the classes for every window.
    A body whose features are `parts` of equal width has them averaged for the classes: a weight for
    each number of each part would learn the training range by heart.
    """

    def __init__(self, body: nn.Module, feed: Feed, parts: int = 1) -> None:
        super().__init__()
        self.parts = parts
        self.view = WindowView(body.shape.steps, body.shape.horizon)
        self.body = body
        self.feed = feed
        self.dropout = nn.Dropout(body.shape.class_dropout)
        self.from_body = nn.Linear(body.features // parts, CLASSES, bias=False)
        self.from_context = nn.Sequential(
            nn.Linear(self.view.context_width, _CONTEXT_UNITS),
            nn.ReLU(),
            nn.Linear(_CONTEXT_UNITS, CLASSES),
        )
        nn.init.zeros_(self.from_body.weight)
        nn.init.zeros_(self.from_context[2].weight)

    def start_from(self, windows: Tensor, shares: Tensor) -> None:
        """Standardise the context over (rows, steps, 3) windows; begin at the classes' `shares`."""
        with torch.no_grad():
            self.view.standardise(windows)
            self.from_context[2].bias.copy_(torch.log(shares.clamp(min=1e-3)))

    def split_parameters(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Return what learns from the path, and what learns from the context."""
        context = list(self.from_context.parameters())
        return [*self.body.parameters(), *self.from_body.parameters()], context

    def forward(self, windows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits (rows, 3), forecast (rows, horizon) and its unit in log return (rows, 1)."""
        path, activity, context, unit = self.view(windows)
        forecast, features = self.body(*self.feed(path, activity))
        if self.parts > 1:
            features = features.unflatten(1, (self.parts, -1)).mean(1)
        logits = self.from_body(self.dropout(features)) + self.from_context(context)
        return logits, forecast, unit


class Probabilities(nn.Module):
    """The part of a classifier that is served."""

    def __init__(self, classifier: SequenceClassifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, windows: Tensor) -> Tensor:
        """Return (rows, 3) probabilities of sell, hold, buy."""
        logits, _, _ = self.classifier(windows)
        return torch.softmax(logits, dim=1)


def build_nhits(shape: NhitsShape) -> SequenceClassifier:
    """Return N-HiTS over the path, with the activity as its other channels."""
    return SequenceClassifier(Nhits(shape), lambda path, activity: (path, activity))


def build_patchtst(shape: PatchShape) -> SequenceClassifier:
    """Return PatchTST over the path; what it costs to serve grows with the channels."""
    return SequenceClassifier(PatchTst(shape), lambda path, _: (path,), shape.patches)


def build_lstm(shape: LstmShape) -> SequenceClassifier:
    """Return an LSTM over path and activity."""
    return SequenceClassifier(Lstm(shape), _join)


def _join(path: Tensor, activity: Tensor) -> tuple[Tensor]:
    return (torch.cat([path.unsqueeze(2), activity], dim=2),)
