"""The networks answer like the published implementations for the same weights."""

import re
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the networks are trained with PyTorch")

from onnx_models.networks.nhits import Nhits, NhitsShape, interpolate_linearly  # noqa: E402
from onnx_models.networks.patchtst import PatchShape, PatchTst  # noqa: E402

TOLERANCE = 1e-5
REFERENCE = np.load(Path(__file__).with_name("reference.npz"))


def tensors(prefix: str) -> dict:
    return {
        name.removeprefix(prefix): torch.from_numpy(REFERENCE[name])
        for name in REFERENCE.files
        if name.startswith(prefix)
    }


def nhits_with_reference_weights() -> Nhits:
    shape = NhitsShape(
        steps=24, horizon=6, channels=2, width=16, hidden_layers=3, pools=(8, 5, 1), knots=(2, 3, 6)
    )
    names = {"0": "enter", "1": "hidden.0", "3": "hidden.1", "5": "hidden.2", "7": "leave"}
    weights = {
        re.sub(r"layers\.(\d)", lambda found: names[found[1]], name): value
        for name, value in tensors("nhits/weights/").items()
    }
    network = Nhits(shape).eval()
    missing, unknown = network.load_state_dict(weights, strict=False)
    assert all("interpolation" in name for name in missing)
    assert unknown == []
    return network


def patchtst_with_reference_weights() -> PatchTst:
    shape = PatchShape(
        steps=44, horizon=6, patch=16, stride=8, width=16, heads=4, layers=3, feed_forward=24
    )
    found = tensors("patchtst/weights/")
    weights = {
        "embed.weight": found["model.encoder.embedder.input_embedding.weight"],
        "embed.bias": found["model.encoder.embedder.input_embedding.bias"],
        "position": found["model.encoder.positional_encoder.position_enc"],
        "forecast.weight": found["head.projection.weight"],
        "forecast.bias": found["head.projection.bias"],
    }
    parts = {
        "norm_attention": "norm_sublayer1.batchnorm",
        "norm_forward": "norm_sublayer3.batchnorm",
    }
    parts |= {"merge": "self_attn.out_proj", "widen": "ff.0", "narrow": "ff.3"}
    for i in range(3):
        reference = f"model.encoder.layers.{i}"
        for ours, theirs in parts.items():
            for name, value in found.items():
                if name.startswith(f"{reference}.{theirs}."):
                    weights[f"layers.{i}.{ours}.{name.rsplit('.', 1)[1]}"] = value
        for kind in ("weight", "bias"):
            three = [found[f"{reference}.self_attn.{one}_proj.{kind}"] for one in "qkv"]
            weights[f"layers.{i}.query_key_value.{kind}"] = torch.cat(three)
    network = PatchTst(shape).eval()
    missing, unknown = network.load_state_dict(weights, strict=False)
    assert missing == ["patch_steps"]
    assert unknown == []
    return network


@pytest.mark.acceptance("S-090", criterion="forward pass equals the published one within 1e-5")
def test_nhits_forecasts_like_the_reference(measured):
    given = tensors("nhits/")
    with torch.no_grad():
        forecast, _ = nhits_with_reference_weights()(given["series"], given["channels"])

    worst = float((forecast - given["forecast"]).abs().max())
    measured(f"largest difference {worst:.1e}")
    assert forecast.shape == (7, 6)
    assert worst <= TOLERANCE


@pytest.mark.acceptance("S-091", criterion="forward pass equals the published one within 1e-5")
def test_patchtst_encodes_and_forecasts_like_the_reference(measured):
    given = tensors("patchtst/")
    rows = given["series"].transpose(1, 2).reshape(10, 44)
    with torch.no_grad():
        forecast, encoded = patchtst_with_reference_weights()(rows)

    by_channel = forecast.reshape(5, 2, 6).transpose(1, 2)
    worst = float((by_channel - given["forecast"]).abs().max())
    worst_encoded = float((encoded.reshape(5, 2, 4, 16) - given["encoded"]).abs().max())
    measured(f"largest difference {worst:.1e} of the forecast, {worst_encoded:.1e} of the encoding")
    assert max(worst, worst_encoded) <= TOLERANCE


def test_a_wrong_weight_shows_in_the_comparison():
    network = nhits_with_reference_weights()
    with torch.no_grad():
        network.blocks[2].leave.bias[-1] += 0.01
        given = tensors("nhits/")
        forecast, _ = network(given["series"], given["channels"])

    assert float((forecast - given["forecast"]).abs().max()) > TOLERANCE


@pytest.mark.parametrize("knots", [1, 2, 3, 6, 24])
def test_interpolation_as_a_matrix_is_the_function(knots):
    values = torch.randn(4, knots)
    expected = torch.nn.functional.interpolate(values.unsqueeze(1), size=24, mode="linear")
    assert torch.allclose(values @ interpolate_linearly(knots, 24), expected.squeeze(1), atol=1e-6)
