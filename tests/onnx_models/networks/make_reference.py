"""Make `reference.npz`: weights, inputs and answers of the published implementations, small sizes.

Run once, in an environment of its own that holds `neuralforecast` and `transformers`; neither is
needed to run the tests: `python make_reference.py reference.npz`.
"""

import sys
from importlib.metadata import version

import numpy as np
import torch
from neuralforecast.models import NHITS
from transformers import PatchTSTConfig, PatchTSTForPrediction


def make_nhits() -> dict[str, np.ndarray]:
    """A window that no pooling kernel of the second stack divides, two channels beside the series."""
    torch.manual_seed(1)
    model = NHITS(
        h=6,
        input_size=24,
        hist_exog_list=["range", "volume"],
        mlp_units=3 * [[16, 16]],
        n_pool_kernel_size=[8, 5, 1],
        n_freq_downsample=[3, 2, 1],
        logger=False,
    ).eval()
    series, channels = torch.randn(7, 24), torch.randn(7, 24, 2)
    batch = {
        "insample_y": series.unsqueeze(-1),
        "insample_mask": torch.ones(7, 24, 1),
        "futr_exog": None,
        "hist_exog": channels,
        "stat_exog": None,
    }
    with torch.no_grad():
        answer = {"series": series, "channels": channels, "forecast": model(batch).squeeze(-1)}
    return _pack("nhits", model, answer)


def make_patchtst() -> dict[str, np.ndarray]:
    """A window that the patches do not fill, batch statistics that are not those of a fresh net."""
    torch.manual_seed(2)
    config = PatchTSTConfig(
        num_input_channels=2,
        context_length=44,
        prediction_length=6,
        patch_length=16,
        patch_stride=8,
        d_model=16,
        num_attention_heads=4,
        num_hidden_layers=3,
        ffn_dim=24,
        scaling="std",
        norm_type="batchnorm",
        pre_norm=True,
        positional_encoding_type="random",
        activation_function="gelu",
        share_embedding=True,
        share_projection=True,
        use_cls_token=False,
        pooling_type=None,
        loss="mse",
        do_mask_input=False,
        attn_implementation="eager",
    )
    model = PatchTSTForPrediction(config).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.bias)
    series = torch.randn(5, 44, 2).cumsum(1)
    with torch.no_grad():
        found = model(past_values=series)
        encoded = model.model(past_values=series).last_hidden_state
    answer = {"series": series, "encoded": encoded, "forecast": found.prediction_outputs}
    return _pack("patchtst", model, answer)


def _pack(
    name: str, model: torch.nn.Module, answer: dict[str, torch.Tensor]
) -> dict[str, np.ndarray]:
    weights = {f"{name}/weights/{key}": value for key, value in model.state_dict().items()}
    found = weights | {f"{name}/{key}": value for key, value in answer.items()}
    return {key: value.detach().numpy() for key, value in found.items()}


if __name__ == "__main__":
    libraries = ("torch", "neuralforecast", "transformers")
    made_with = np.array([f"{one} {version(one)}" for one in libraries])
    np.savez_compressed(sys.argv[1], made_with=made_with, **make_nhits(), **make_patchtst())
