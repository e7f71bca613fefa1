import numpy as np
import pytest

from onnx_models.model_card import bootstrap_interval, evaluate

HOUR_NS = 3_600_000_000_000
PRIOR = np.array([0.2, 0.6, 0.2])


def outcomes(count=4000):
    generator = np.random.default_rng(11)
    labels = generator.choice(3, size=count, p=PRIOR)
    return labels, np.arange(count, dtype=np.int64) * HOUR_NS


def test_the_prior_itself_gains_nothing():
    labels, times = outcomes()
    found = evaluate(np.tile(PRIOR, (len(labels), 1)), labels, PRIOR, times)
    assert found["log_loss"] == pytest.approx(found["log_loss_prior"])
    assert found["gain_interval_95"] == pytest.approx([0.0, 0.0])
    assert found["direction"]["gain_interval_95"] == pytest.approx([0.0, 0.0])
    assert found["winner_shares"] == [0.0, 1.0, 0.0]


def test_knowing_the_outcome_gains_in_all_and_in_direction():
    labels, times = outcomes()
    sure = np.full((len(labels), 3), 0.05)
    sure[np.arange(len(labels)), labels] = 0.9
    found = evaluate(sure, labels, PRIOR, times)
    assert found["gain_interval_95"][0] > 0.5
    assert found["direction"]["gain_interval_95"][0] > 0.3


def test_knowing_only_that_nothing_moves_gains_nothing_in_direction():
    labels, times = outcomes()
    quiet = np.where(labels == 1, 0.9, 0.1)
    side = (1 - quiet) / 2
    found = evaluate(np.column_stack([side, quiet, side]), labels, PRIOR, times)
    assert found["gain_interval_95"][0] > 0.3
    assert found["direction"]["gain_mean"] == pytest.approx(0.0)


def test_noise_has_an_interval_around_zero():
    generator = np.random.default_rng(3)
    gains = generator.normal(size=3000)
    low, high = bootstrap_interval(gains, np.arange(3000, dtype=np.int64) * HOUR_NS)
    assert low < 0.0 < high


def test_blocks_widen_the_interval_of_gains_that_hang_together():
    generator = np.random.default_rng(3)
    shared = np.repeat(generator.normal(size=100), 48)
    alone = generator.permutation(shared)
    times = np.arange(len(shared), dtype=np.int64) * HOUR_NS
    low, high = bootstrap_interval(shared, times)
    low_alone, high_alone = bootstrap_interval(alone, times)
    assert high - low > 4 * (high_alone - low_alone)
