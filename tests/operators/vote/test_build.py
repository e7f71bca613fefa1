import pytest

from onnx_models.labels import Labelling
from operators.vote import PanelRule, build_rule
from schemas.settings import VoteSettings


def test_the_default_settings_are_the_default_rule():
    assert build_rule(VoteSettings()) == PanelRule()


def test_the_default_label_is_that_of_the_data_sets():
    label, offline = build_rule(VoteSettings()).label, Labelling()
    assert (label.horizon_bars, label.cost_bps, label.volatility_factor) == (
        offline.horizon_bars,
        offline.cost_bps,
        offline.volatility_factor,
    )


def test_costs_of_the_label_are_those_of_a_round_trip():
    rule = build_rule(VoteSettings(fee_bps=5, half_spread_bps=2, slippage_bps=0.5))
    assert rule.label.cost_bps == rule.costs.round_trip_bps == 15.0


def test_a_floor_above_the_cap_is_refused():
    with pytest.raises(ValueError, match=r"weight_floor` must not exceed .* 0.3; found 0.4"):
        build_rule(VoteSettings(weight_floor=0.4, weight_cap=0.3))
