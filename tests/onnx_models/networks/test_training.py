"""The training loop finds a planted signal, draws fairly, and leaves the process as it was."""

import numpy as np
import pytest
from msgspec.structs import replace

torch = pytest.importorskip("torch", reason="the networks are trained with PyTorch")

from onnx_models.networks.family import NETWORKS  # noqa: E402
from onnx_models.networks.training import (  # noqa: E402
    LearningRows,
    TrainingPlan,
    _draw_epochs,
    _spread,
    reproducible,
    score,
    train_network,
)
from onnx_models.networks.views import WindowView  # noqa: E402
from operators.features import Mirror  # noqa: E402
from schemas.features import SEQUENCE_SCHEMAS  # noqa: E402


def planted(count: int, seed: int):
    """Windows whose last ten returns decide the class, and nothing else does."""
    generator = np.random.default_rng(seed)
    windows = np.abs(generator.normal(size=(count, 120, 3))).astype(np.float32)
    windows[:, :, 0] = generator.normal(size=(count, 120)) * 0.01
    recent = windows[:, -10:, 0].sum(axis=1)
    labels = np.digitize(recent, [-0.013, 0.013]).astype(np.int64)
    return windows, labels


def rows_of(windows, labels, train) -> LearningRows:
    return LearningRows(
        windows=lambda rows: windows[rows],
        futures=lambda rows: np.full((len(rows), 24), np.nan, dtype=np.float32),
        labels=labels,
        train=np.arange(train),
        calibration=np.arange(train, len(labels)),
        mirror=Mirror.of(SEQUENCE_SCHEMAS["sq120"]),
    )


def train(name, windows, labels):
    family = NETWORKS[name]()
    plan = TrainingPlan(windows_per_epoch=1024, epochs_max=3)
    with reproducible(1, "cpu", 1):
        network = family._build(family.shape)
        rows = rows_of(windows, labels, len(labels) * 3 // 4)
        curve = train_network(
            network, rows, plan, seed=1, device="cpu", budget_seconds=None,
            report=lambda share, note: None,
        )  # fmt: skip
    return network, curve


def test_every_second_window_is_seen_in_the_mirror():
    windows, labels = planted(6, seed=5)
    futures = np.arange(6 * 24, dtype=np.float32).reshape(6, 24)
    rows = replace(rows_of(windows, labels, 4), futures=lambda asked: futures[asked])
    seen, ahead, known = rows.take(np.array([5, 4, 3]))
    for place, row in ((0, 5), (2, 3)):
        assert (seen[place] == windows[row]).all()
        assert (ahead[place] == futures[row]).all()
        assert known[place] == labels[row]
    assert (seen[1] == windows[4] * np.array([-1, 1, 1], dtype=np.float32)).all()
    assert (ahead[1] == -futures[4]).all()
    assert known[1] == 2 - labels[4]
    assert seen.dtype == ahead.dtype == np.float32


def test_images_set_the_start_and_stop_the_fit(monkeypatch):
    windows, labels = planted(512, seed=5)
    rows = rows_of(windows, np.where(labels == 0, 2, labels), 384)
    plan = TrainingPlan(windows_per_epoch=128, epochs_max=1)
    network = NETWORKS["nhits"]()._build(NETWORKS["nhits"]().shape)
    started, start_from = [], network.start_from

    def watch(seen, shares):
        started.append((seen.numpy().copy(), shares.numpy().copy()))
        start_from(seen, shares)

    monkeypatch.setattr(network, "start_from", watch)
    with reproducible(1, "cpu", 1):
        curve = train_network(
            network, rows, plan, seed=1, device="cpu", budget_seconds=None,
            report=lambda share, note: None,
        )  # fmt: skip
    ((seen, shares),) = started
    assert (seen == rows.take(next(_draw_epochs(rows.train, 128, 1)))[0]).all()
    assert shares[0] == shares[2] > 0.0
    held, _, answers = rows.take(_spread(rows.calibration, 128, 1))
    loss = -np.log(score(network, held)[np.arange(len(held)), answers]).mean()
    assert curve.loss_calibration == [pytest.approx(loss, abs=1e-6)]


def test_of_every_symbol_windows_and_images_stop_the_fit():
    symbols = 12
    rows = np.arange(1200)
    asked = _spread(rows, 4096, seed=3)
    assert sorted(asked) == rows.tolist()
    images = [int((asked[1::2] % symbols == symbol).sum()) for symbol in range(symbols)]
    assert 25 < min(images) <= max(images) < 75
    assert (asked == _spread(rows, 4096, seed=3)).all()
    assert (asked != _spread(rows, 4096, seed=4)).any()
    assert sorted(_spread(rows, 3, seed=3)) == [0, 599, 1199]


def test_a_market_that_only_rose_teaches_no_direction():
    windows, labels = planted(2048, seed=5)
    network, _ = train("nhits", windows, np.where(labels == 0, 2, labels))
    unseen, _ = planted(1000, seed=6)
    found = score(network, unseen)
    assert abs(float((found[:, 2] - found[:, 0]).mean())) < 0.1


@pytest.mark.parametrize(("name", "gain"), [("nhits", 0.3), ("patchtst", 0.1), ("lstm", 0.1)])
def test_a_planted_signal_is_found(name, gain):
    windows, labels = planted(2048, seed=5)
    unseen, truth = planted(500, seed=6)
    network, _ = train(name, windows, labels)

    found = score(network, unseen)[np.arange(len(truth)), truth]
    prior = np.bincount(labels, minlength=3) / len(labels)
    assert -np.log(found).mean() < -np.log(prior[truth]).mean() - gain


def test_shuffled_labels_score_the_prior():
    windows, labels = planted(2048, seed=5)
    np.random.default_rng(1).shuffle(labels)
    unseen, truth = planted(500, seed=6)
    np.random.default_rng(2).shuffle(truth)
    network, _ = train("nhits", windows, labels)

    found = score(network, unseen)[np.arange(len(truth)), truth]
    prior = np.bincount(labels, minlength=3) / len(labels)
    assert -np.log(found).mean() > -np.log(prior[truth]).mean() - 0.02


@pytest.mark.parametrize(
    ("learning_rate", "context_learning_rate", "path_moves", "context_moves"),
    [(0.0, 1e-3, False, True), (1e-3, 0.0, True, False)],
)
def test_path_and_context_learn_at_their_own_rates(
    learning_rate, context_learning_rate, path_moves, context_moves
):
    windows, labels = planted(256, seed=5)
    plan = TrainingPlan(
        learning_rate=learning_rate,
        context_learning_rate=context_learning_rate,
        windows_per_epoch=128,
        epochs_max=1,
    )
    network = NETWORKS["patchtst"]()._build(NETWORKS["patchtst"]().shape)
    path, context = network.split_parameters()
    before = [[one.detach().clone() for one in part] for part in (path, context)]
    train_network(
        network, rows_of(windows, labels, 192), plan, seed=1, device="cpu", budget_seconds=None,
        report=lambda share, note: None,
    )  # fmt: skip

    assert len(path) + len(context) == len(list(network.parameters()))
    assert moved(path, before[0]) == path_moves
    # The start sets the bias of the context to the classes' shares; its first layer only learns.
    assert moved(context[:1], before[1][:1]) == context_moves


def test_the_classes_of_patchtst_read_the_mean_over_the_patches():
    windows = torch.from_numpy(planted(4, seed=1)[0])
    shape = NETWORKS["patchtst"]().shape
    network = NETWORKS["patchtst"]()._build(shape).eval()
    torch.nn.init.normal_(network.from_body.weight)
    with torch.no_grad():
        path, _, context, _ = network.view(windows)
        encoded = network.body(path)[1].reshape(4, shape.patches, shape.width)
        logits = network(windows)[0] - network.from_context(context)

    expected = encoded.mean(1) @ network.from_body.weight.T
    assert torch.allclose(logits, expected, atol=1e-5)
    assert expected.abs().max() > 0.1


def moved(found, before) -> bool:
    return any(not torch.equal(one, other) for one, other in zip(found, before, strict=True))


@pytest.mark.parametrize("name", ["nhits", "patchtst", "lstm"])
def test_an_untrained_network_answers_the_prior(name):
    windows, _ = planted(8, seed=1)
    family = NETWORKS[name]()
    network = family._build(family.shape)
    network.start_from(torch.from_numpy(windows), torch.tensor([0.2, 0.5, 0.3]))

    assert np.allclose(score(network, windows), [0.2, 0.5, 0.3], atol=1e-6)


@pytest.mark.parametrize(("rows", "count"), [(10, 3), (9, 3), (2, 5), (5, 5)])
def test_no_window_is_drawn_again_before_the_others_were(rows, count):
    epochs = _draw_epochs(np.arange(rows), count, seed=4)
    per_round = max(rows // count, 1)
    for _ in range(3):
        drawn = np.concatenate([next(epochs) for _ in range(per_round)])
        assert len(np.unique(drawn)) == len(drawn) == min(per_round * count, rows)


def _fail_midway():
    torch.rand(3)
    assert torch.are_deterministic_algorithms_enabled()
    torch.zeros(1).to("no such device")


def test_reproducible_puts_the_process_back():
    before = torch.get_rng_state(), torch.are_deterministic_algorithms_enabled()
    threads = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="device"), reproducible(1, "cpu", threads + 1):
        _fail_midway()

    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.are_deterministic_algorithms_enabled() == before[1]
    assert torch.get_num_threads() == threads


def test_the_path_is_the_logarithm_of_the_price_over_the_last():
    windows = torch.from_numpy(planted(16, seed=2)[0])
    path, _, _, unit = WindowView(120, 24)(windows)

    prices = torch.cumsum(windows[:, :, 0].double(), dim=1)
    expected = prices - prices[:, -1:]
    assert torch.allclose((path * unit).double(), expected, atol=1e-5)
    assert torch.equal(path[:, -1], torch.zeros(16))


def test_the_path_is_free_of_scale_and_the_context_is_not():
    windows = torch.from_numpy(planted(16, seed=2)[0])
    wilder = windows * torch.tensor([4.0, 4.0, 1.0])
    view = WindowView(120, 24)
    calm, wild = view(windows), view(wilder)

    assert torch.allclose(calm[0], wild[0], atol=1e-3)
    assert (wild[2][:, 0] - calm[2][:, 0]).min() > 1.3


def test_a_market_that_stands_still_has_finite_views():
    for found in WindowView(120, 24)(torch.zeros(2, 120, 3)):
        assert torch.isfinite(found).all()
