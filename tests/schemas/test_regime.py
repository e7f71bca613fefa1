"""Five regimes and unknown, one mapping to every other vocabulary, eleven inputs."""

from pathlib import Path

import pytest

from schemas.features import FEATURES
from schemas.regime import REGIMES, RG11, TRANSLATIONS, Regime, Vocabulary, translate

WORDS = {
    Vocabulary.BRAIN_OVERVIEW: {"Bull", "Bear", "High Vol", "Low Vol", "Range-Bound"},
    Vocabulary.BRAIN_CLASSIFIER: {"Bull", "Bear", "High Vol Choppy", "Low Vol Range", "Crisis"},
    Vocabulary.META: {"BULL", "BEAR", "RANGE", "VOLATILE", "UNCERTAIN"},
    Vocabulary.EXIT_BRAIN: {"NORMAL", "VOLATILE", "TRENDING", "RANGE_BOUND"},
}
"""Everything that each predecessor can say."""


@pytest.mark.acceptance("S-148", criterion="mapping to the other vocabularies is total")
def test_every_regime_has_a_word_in_every_vocabulary(measured):
    said = {name: {translate(one, name) for one in Regime} for name in Vocabulary}
    assert set(TRANSLATIONS) == set(Vocabulary) == set(WORDS)
    assert all(said[name] <= WORDS[name] for name in Vocabulary)
    assert all(set(TRANSLATIONS[name]) == set(Regime) for name in Vocabulary)
    measured(f"{len(Regime)} regimes x {len(Vocabulary)} vocabularies")


def test_crisis_and_unknown_are_never_called_quiet_or_trending():
    quiet = {"Low Vol", "Low Vol Range", "RANGE", "RANGE_BOUND", "Range-Bound"}
    trending = {"Bull", "Bear", "BULL", "BEAR", "TRENDING"}
    for name in Vocabulary:
        assert translate(Regime.CRISIS, name) not in quiet | trending
        assert translate(Regime.UNKNOWN, name) not in quiet | trending


def test_the_documented_mapping_is_this_one():
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    for one in Regime:
        words = " | ".join(translate(one, name) for name in Vocabulary)
        assert f"| `{one}` | {words} |" in page


def test_regimes_are_five_and_have_a_model_input_each():
    assert len(REGIMES) == 5
    assert Regime.UNKNOWN not in REGIMES
    assert {f"regime_{one}" for one in REGIMES} <= set(FEATURES)


def test_the_schema_names_eleven_inputs_and_their_longest_window():
    assert len(RG11) == len(set(RG11.names)) == 11
    assert max(one.warm_up_bars for one in RG11.features) == 220
