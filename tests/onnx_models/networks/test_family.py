"""Networks learn from recorded bars, repeat themselves, and answer the same from ONNX."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from msgspec.structs import replace

torch = pytest.importorskip("torch", reason="the networks are trained with PyTorch")

from onnx_models.networks.family import NETWORKS, future_paths  # noqa: E402
from tests.onnx_models.networks.small import (  # noqa: E402
    HORIZON_BARS,
    SQ120,
    later_rows,
    quick,
    request,
)

PARITY_ROWS = 10_000
PARITY_MAX = 1e-4


@pytest.fixture(scope="module", params=["nhits", "patchtst", "lstm"])
def fitted(request_hours, request):
    family = quick(NETWORKS[request.param]())
    return family.name, {seed: family.fit(replace(request_hours, seed=seed)) for seed in (7, 8)}


@pytest.fixture(scope="module")
def request_hours(hours):
    return request(hours)


def score_onnx(model: bytes, inputs: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return np.concatenate(
        [session.run(None, {"input": inputs[i : i + 500]})[0] for i in range(0, len(inputs), 500)]
    )


def many_windows(hours) -> np.ndarray:
    """Recorded windows, and the same in calmer and wilder markets."""
    recorded = hours.reader(SQ120).take(hours.usable_rows(HORIZON_BARS, SQ120))
    generator = np.random.default_rng(3)
    chosen = recorded[generator.integers(0, len(recorded), PARITY_ROWS)]
    factor = np.exp(generator.normal(size=(PARITY_ROWS, 1, 3))).astype(np.float32)
    return chosen * factor


def log_loss(probabilities, labels) -> float:
    return float(-np.log(probabilities[np.arange(len(labels)), labels]).mean())


@pytest.mark.acceptance("S-090", criterion="trains in time above 0, its loss falls, seeds differ")
@pytest.mark.acceptance("S-091", criterion="trains in time above 0, its loss falls, seeds differ")
@pytest.mark.acceptance("S-205", criterion="an LSTM is there to be trained")
def test_training_takes_time_lowers_the_loss_and_depends_on_the_seed(fitted, hours, measured):
    name, by_seed = fitted
    rows = later_rows(hours)
    labels = hours.targets[HORIZON_BARS].labels[rows]
    windows = hours.reader(SQ120).take(rows)
    losses = [log_loss(one.probabilities(windows), labels) for one in by_seed.values()]

    record = by_seed[7].record
    measured(
        f"{name}: {record.wall_seconds:.1f} s, loss {record.loss_train[0]:.4f} to "
        f"{record.loss_train[-1]:.4f}, out of sample {losses[0]:.4f} and {losses[1]:.4f}"
    )
    assert record.wall_seconds > 0
    assert record.loss_train[-1] < record.loss_train[0]
    assert len(record.loss_train) == len(record.loss_calibration) == 3
    assert record.loss_calibration[record.best_round] == min(record.loss_calibration)
    assert losses[0] != losses[1]


@pytest.mark.acceptance("S-090", criterion="ONNX answers like PyTorch within 1e-4 on 10,000 rows")
@pytest.mark.acceptance("S-091", criterion="ONNX answers like PyTorch within 1e-4 on 10,000 rows")
def test_onnx_answers_like_the_network(fitted, hours, measured):
    name, by_seed = fitted
    windows = many_windows(hours)
    windows = np.concatenate([windows, by_seed[7].boundary_inputs(windows)])

    model = by_seed[7].export()

    expected = by_seed[7].probabilities(windows)
    worst = float(np.abs(score_onnx(model, windows) - expected).max())
    measured(f"{name}: {worst:.1e} over {len(windows)} rows")
    assert worst <= PARITY_MAX
    assert expected.std(axis=0).min() > 1e-3
    assert np.abs(expected.sum(axis=1) - 1.0).max() < 1e-6


def test_the_exported_graph_is_what_serving_takes(fitted):
    model = onnx.load_model_from_string(fitted[1][7].export())

    assert [one.name for one in model.graph.output] == ["probabilities"]
    assert {one.domain: one.version for one in model.opset_import} == {"": 17}
    sizes = [one.dim_value for one in model.graph.input[0].type.tensor_type.shape.dim]
    assert sizes == [0, *SQ120.input_shape]
    answered = model.graph.output[0].type.tensor_type.shape.dim
    assert (answered[0].dim_param, answered[1].dim_value) == ("rows", 3)
    assert not any(node.doc_string for node in model.graph.node)


def test_rows_do_not_depend_on_who_else_is_in_the_batch(fitted, hours):
    model, windows = fitted[1][7].export(), many_windows(hours)[:40]

    together = score_onnx(model, windows)
    alone = np.concatenate([score_onnx(model, windows[i : i + 1]) for i in range(40)])

    assert np.abs(together - alone).max() < 1e-6


def test_the_return_head_forecasts_the_horizon_of_the_label(fitted, hours):
    windows = many_windows(hours)[:64]
    found = fitted[1][7].expected_returns(windows)
    with torch.no_grad():
        _, forecast, unit = fitted[1][7].network(torch.from_numpy(windows))

    expected = np.expm1((forecast[:, HORIZON_BARS - 1] * unit[:, 0]).numpy())
    assert found.shape == (64,)
    assert np.allclose(found, expected, atol=1e-7)


@pytest.mark.parametrize("name", ["nhits", "patchtst"])
def test_the_same_seed_makes_the_same_bytes(name, request_hours):
    family = quick(NETWORKS[name](), epochs_max=2)
    first, second = (family.fit(request_hours).export() for _ in range(2))
    other = family.fit(replace(request_hours, seed=8)).export()

    assert first == second
    assert first != other


def test_bars_after_the_last_label_of_the_training_rows_teach_nothing(hours, request_hours):
    until = int(hours.targets[HORIZON_BARS].ends_ns[request_hours.train].max())
    later = hours.close_times_ns > until
    moved = replace(hours, closes=np.where(later, hours.closes * 3.0, hours.closes))
    family = quick(NETWORKS["nhits"](), epochs_max=2)

    honest = family.fit(request_hours)
    altered = family.fit(replace(request_hours, data=moved))

    assert later.mean() > 0.2
    assert honest.record.details["loss_forecast"] == altered.record.details["loss_forecast"]
    assert honest.export() == altered.export()


def test_futures_end_with_the_series_and_at_the_limit(hours):
    last = int(hours.close_times_ns.max())
    rows = np.arange(len(hours.closes))
    found = future_paths(hours, rows, 24, last - 5 * 3_600_000_000_000)

    for row in (0, 1, 700, *(len(rows) - back for back in (60, 10, 9, 2, 1))):
        own = np.flatnonzero(
            (hours.symbol_codes == hours.symbol_codes[row])
            & (hours.close_times_ns > hours.close_times_ns[row])
            & (hours.close_times_ns <= last - 5 * 3_600_000_000_000)
        )[:24]
        expected = np.full(24, np.nan)
        expected[: len(own)] = np.log(hours.closes[own] / hours.closes[row])
        assert np.allclose(found[row], expected, atol=1e-7, equal_nan=True)
    assert np.isnan(found).any()


def test_a_used_up_budget_ends_the_training_and_is_told(request_hours):
    family = quick(NETWORKS["nhits"](), epochs_max=30)
    fit = family.fit(replace(request_hours, budget_seconds=1e-3))

    assert len(fit.record.loss_train) == 1
    assert any("budget" in one for one in fit.record.left_out)
    assert len(fit.export()) > 1000


def test_training_ends_when_the_calibration_range_has_seen_enough(request_hours):
    notes = []
    family = quick(NETWORKS["nhits"](), epochs_max=30, patience_epochs=2)
    fit = family.fit(replace(request_hours, report=lambda share, note: notes.append((share, note))))

    assert len(fit.record.loss_train) == fit.record.best_round + 3 < 30
    assert len(notes) == len(fit.record.loss_train)
    assert notes[0][1].startswith("epoch 1, loss 1.")
    assert any("256 of" in one for one in fit.record.left_out)


@pytest.mark.acceptance(
    "S-092", criterion="one code for CPU and GPU; a device that is not there is refused"
)
def test_the_device_is_an_option(request_hours, measured):
    family = quick(NETWORKS["nhits"](), epochs_max=1)
    if torch.cuda.is_available():
        fit = family.fit(replace(request_hours, device="cuda"))
        measured(f"trained on cuda in {fit.record.wall_seconds:.1f} s")
        assert fit.record.details["device"] == "cuda"
    else:
        measured("no card here: cuda refused, cpu trains")
        with pytest.raises(ValueError, match="cuda"):
            family.fit(replace(request_hours, device="cuda"))
    with pytest.raises(ValueError, match="abacus"):
        family.fit(replace(request_hours, device="abacus"))


def test_a_range_without_windows_is_refused(request_hours):
    empty = np.array([], dtype=np.int64)
    with pytest.raises(ValueError, match="windows to learn from"):
        quick(NETWORKS["nhits"]()).fit(replace(request_hours, train=empty))


def test_parameters_are_those_of_the_requirements():
    nhits, patchtst = (NETWORKS[name]().parameters for name in ("nhits", "patchtst"))

    assert (nhits["network"]["steps"], nhits["network"]["horizon"]) == (120, 24)
    assert len(nhits["network"]["pools"]) == len(nhits["network"]["knots"]) == 3
    assert (nhits["training"]["batch_rows"], nhits["training"]["learning_rate"]) == (32, 1e-3)
    assert nhits["training"]["patience_epochs"] == 10
    sizes = [patchtst["network"][name] for name in ("steps", "horizon", "patch", "stride")]
    assert sizes == [120, 24, 16, 8]
    assert [patchtst["network"][name] for name in ("width", "heads", "layers")] == [128, 4, 3]
    assert patchtst["training"]["learning_rate"] == 1e-4
