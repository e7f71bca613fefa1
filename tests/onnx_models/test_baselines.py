import msgspec
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression as Reference
from sklearn.preprocessing import StandardScaler

from onnx_models.baselines import Baseline, class_shares, fit_baselines
from onnx_models.families import FitRequest
from schemas.features import FEATURE_SCHEMAS
from tests.onnx_models.recorded import three_symbols

SCHEMA = FEATURE_SCHEMAS["fs34"]


@pytest.fixture(scope="module")
def fitted():
    data = three_symbols()
    rows = data.usable_rows(4, SCHEMA)
    return data, rows, fit_baselines(data, 4, rows[:4000])


def test_every_baseline_answers_distributions(fitted):
    data, rows, baselines = fitted
    for baseline in baselines.values():
        found = baseline.answer(data, rows)
        assert found.shape == (len(rows), 3)
        assert found.min() > 0.0
        assert np.abs(found.sum(axis=1) - 1.0).max() < 1e-12


def test_the_prior_counts_what_was_known_and_nothing_later(fitted):
    data, rows, baselines = fitted
    labels = data.targets[4].labels[rows[:4000]]
    expected = [(np.sum(labels == one) + 1) / 4003 for one in range(3)]
    assert baselines["class_prior"].answer(data, rows[-1:])[0] == pytest.approx(expected)


def test_last_sign_answers_what_followed_such_bars(fitted):
    data, rows, baselines = fitted
    known, returns = rows[:4000], data.inputs[:, SCHEMA.names.index("returns")]
    rose = known[returns[known] > 0]
    row = rows[4000:][returns[rows[4000:]] > 0][:1]
    expected = class_shares(data.targets[4].labels[rose])
    assert baselines["last_sign"].answer(data, row)[0] == pytest.approx(expected)


def test_logistic_regression_equals_the_library(fitted):
    data, rows, baselines = fitted
    scaler = StandardScaler().fit(data.inputs[rows[:4000]].astype(np.float64))

    def standard(chosen):
        return np.clip(scaler.transform(data.inputs[chosen].astype(np.float64)), -5, 5)

    reference = Reference(max_iter=500).fit(
        standard(rows[:4000]), data.targets[4].labels[rows[:4000]]
    )
    found = baselines["logistic_regression"].answer(data, rows[4000:])
    assert np.abs(found - reference.predict_proba(standard(rows[4000:]))).max() < 1e-6


def test_baselines_survive_a_card(fitted):
    data, rows, baselines = fitted
    for baseline in baselines.values():
        again = msgspec.json.decode(msgspec.json.encode(baseline), type=Baseline)
        assert np.array_equal(again.answer(data, rows[:50]), baseline.answer(data, rows[:50]))


def test_rows_of_one_class_are_refused():
    data = three_symbols()
    rows = data.usable_rows(4, SCHEMA)
    with pytest.raises(ValueError, match="must have all three classes"):
        fit_baselines(data, 4, rows[data.targets[4].labels[rows] > 0])


def test_a_request_is_silent_unless_asked():
    rows = np.arange(3)
    request = FitRequest(data=three_symbols(), horizon_bars=4, train=rows, calibration=rows)
    assert request.report(0.5, "half") is None
