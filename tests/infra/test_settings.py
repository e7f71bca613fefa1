import pytest
from pydantic import SecretStr

from infra.settings import (
    FILE_VARIABLE,
    SettingsError,
    load_settings,
    settings_hash,
    settings_json,
    write_settings,
)


def load(**environ):
    return load_settings(environ={f"QUANTSTREAM_{key}": value for key, value in environ.items()})


def test_defaults_load_without_a_file_or_a_variable(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load().settings.environment == "paper"


def test_a_variable_wins_over_the_file_and_the_origin_is_told(tmp_path):
    file = tmp_path / "q.toml"
    file.write_text('environment = "from-file"\n[bars]\nlateness_ms = 5\n')
    loaded = load_settings(file, {"QUANTSTREAM_ENVIRONMENT": "from-variable"})
    rows = {key: (value, origin) for key, value, origin in loaded.rows()}

    assert rows["environment"] == ('"from-variable"', "environment")
    assert rows["bars.lateness_ms"] == ("5", str(file))
    assert rows["account"][1] == "default"


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"KAFKA__BOTSTRAP": "x"}, "did you mean 'kafka.bootstrap'"),
        ({"PORTFOLIO__DRAWDOWN_MAX_PC": "1"}, "did you mean 'portfolio.drawdown_max_pct'"),
        ({"BARS__TIMEFRAMES": '["7m"]'}, "found '7m'"),
        ({"ENVIRONMENT": "Not Valid"}, "found 'Not Valid'"),
        ({"PORTFOLIO__STARTING_CASH_USD": "NaN"}, "portfolio.starting_cash_usd"),
        ({"PORTFOLIO__DAILY_LOSS_MAX_PCT": "-1"}, "portfolio.daily_loss_max_pct"),
    ],
)
def test_a_bad_setting_stops_the_start_with_its_key(variables, text):
    with pytest.raises(SettingsError) as caught:
        load(**variables)
    assert text in str(caught.value)


def test_a_file_that_is_no_toml_is_refused_by_name(tmp_path):
    file = tmp_path / "broken.toml"
    file.write_text("[[[")
    with pytest.raises(SettingsError, match=r"broken\.toml"):
        load_settings(environ={FILE_VARIABLE: str(file)})


def test_naming_one_strategy_keeps_the_others():
    strategies = load(STRATEGIES__RSI_MEAN_REVERSION__ENABLED="false").settings.strategies
    assert not strategies["rsi_mean_reversion"].enabled
    assert strategies["ma_crossover"].enabled


def test_secrets_are_in_no_text_but_survive_the_written_file(tmp_path):
    settings = load(STORE__PASSWORD="canary-7f3a", STATE_DIR=str(tmp_path)).settings
    file = tmp_path / "effective.toml"
    write_settings(settings, file)
    again = load_settings(file, {}).settings

    assert "canary-7f3a" not in settings_json(settings)
    assert "canary-7f3a" not in str(list(load(STORE__PASSWORD="canary-7f3a").rows()))
    assert again.store.password == SecretStr("canary-7f3a")
    assert settings_hash(again) == settings_hash(settings)
    assert file.stat().st_mode & 0o077 == 0


def test_the_hash_changes_with_a_setting_and_not_with_the_state_folder():
    base = settings_hash(load().settings)
    assert settings_hash(load(STATE_DIR="elsewhere").settings) == base
    assert settings_hash(load(BARS__LATENESS_MS="1").settings) != base
