"""The folder of a backtest against the recorded bars that it ran over."""

import json

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from dataflows.cli.main import app

HOUR_NS = 3_600_000_000_000
BAR_NS = HOUR_NS // 12
START_NS = 1_717_200_000_000_000_000
BARS = 400


def recorded():
    """Bars of two symbols: quiet ones, empty ones, and some with less volume than prices."""
    chance = np.random.default_rng(3)
    frames = []
    for symbol, price in (("AAAUSDT", 50.0), ("BBBUSDT", 9.0)):
        close = price * np.exp(np.cumsum(chance.normal(0.0, 0.01, BARS)))
        opened = np.r_[price, close[:-1]]
        high = np.maximum(opened, close) * (1 + chance.random(BARS) / 100)
        low = np.minimum(opened, close) * (1 - chance.random(BARS) / 100)
        volume = chance.integers(100, 90_000, BARS) / 100
        volume[50:55], volume[60:70] = 0.0, chance.integers(1, 6, 10) / 100
        frames.append(
            pl.DataFrame(
                {
                    "ts_ns": START_NS + BAR_NS * np.arange(BARS),
                    "venue": "binance_spot",
                    "symbol": symbol,
                    "timeframe": "5m",
                    "open": opened.round(2),
                    "high": high.round(2),
                    "low": low.round(2),
                    "close": close.round(2),
                    "volume": volume,
                }
            )
        )
    return pl.concat(frames)


@pytest.fixture(scope="module")
def backtest(tmp_path_factory):
    """The recording and the folder of a backtest that traded on it."""
    home = tmp_path_factory.mktemp("recorded")
    recorded().write_parquet(home / "bars.parquet")
    rules = ("rsi_mean_reversion", "bollinger_bounce")
    chosen = {f"QUANTSTREAM_STRATEGIES__{name.upper()}__TIMEFRAME": "5m" for name in rules}
    # The recording ends before any model has seen enough bars.
    chosen["QUANTSTREAM_VOTE__OPINION_REQUIRED"] = "false"
    arguments = ["backtest", str(home / "bars.parquet"), "--out", str(home / "out"), "--no-report"]
    answer = CliRunner().invoke(app, arguments, env=chosen)
    assert answer.exit_code == 0, answer.output
    assert pl.read_parquet(home / "out/trade_fills.parquet").height > 10
    return home


def verify(*arguments):
    return CliRunner().invoke(app, ["verify", "--json", *map(str, arguments)])


def check_of(answer, name):
    return next(each for each in json.loads(answer.output)["checks"] if each["name"] == name)


def changed(backtest, tmp_path, symbol, row, **fields):
    """Write the recording with one bar changed."""
    bars = recorded()
    here = (pl.col("symbol") == symbol) & (pl.col("ts_ns") == START_NS + BAR_NS * row)
    columns = [
        pl.when(here).then(pl.lit(value)).otherwise(name).alias(name)
        for name, value in fields.items()
    ]
    bars.with_columns(columns).write_parquet(tmp_path / "other.parquet")
    return verify("--folder", backtest / "out", "--input", tmp_path / "other.parquet")


def test_a_true_folder_is_clean_against_its_recording(backtest):
    answer = verify("--folder", backtest / "out", "--input", backtest / "bars.parquet")
    assert json.loads(answer.output)["ok"], answer.output
    assert check_of(answer, "bars")["rows"] > 1.9 * BARS
    for name in ("bars", "orders and fills", "fill costs", "provenance", "ledger", "limits"):
        assert not check_of(answer, name)["skipped"]


def test_without_its_recording_the_report_says_what_is_missing(backtest):
    answer = verify("--folder", backtest / "out")
    assert json.loads(answer.output)["ok"]
    assert "no --input was given" in check_of(answer, "bars")["skipped"]
    assert "without all ticks" in check_of(answer, "fill costs")["skipped"]


@pytest.mark.parametrize("field", ["open", "high", "low", "close", "volume"])
def test_a_bar_that_does_not_add_up_is_named(field, backtest, tmp_path):
    row = recorded().filter(pl.col("symbol") == "AAAUSDT").row(200, named=True)
    value = {"low": row["low"] - 1, "high": row["high"] + 1}.get(
        field, (row[field] + row["low"]) / 2
    )
    found = check_of(changed(backtest, tmp_path, "AAAUSDT", 200, **{field: value}), "bars")
    first = found["first"][0]
    bars = pl.read_parquet(backtest / "out/market_bars.parquet").with_row_index()
    at = pl.col("id") == first["key"]
    assert bars.filter(at)["index"].to_list() == [first["offset"]]
    keys = [each["key"] for each in found["first"]]
    assert f"bar/binance_spot/AAAUSDT/5m/{START_NS + BAR_NS * 201}" in keys


def test_a_bar_that_the_recording_lacks_is_named(backtest, tmp_path):
    found = check_of(changed(backtest, tmp_path, "BBBUSDT", 100, volume=0.0), "bars")
    key = f"bar/binance_spot/BBBUSDT/5m/{START_NS + BAR_NS * 101}"
    assert key in [each["key"] for each in found["first"]]


def test_a_fill_on_a_trade_that_never_was_is_named(backtest, tmp_path):
    fills = pl.read_parquet(backtest / "out/trade_fills.parquet")
    fill = fills.row(4, named=True)
    row = (fill["event_time_ns"] - START_NS) // BAR_NS
    old = recorded().filter(symbol=fill["symbol"], ts_ns=START_NS + BAR_NS * row).row(0, named=True)
    moved = {name: old[name] + 1 for name in ("open", "high", "low", "close")}
    answer = changed(backtest, tmp_path, fill["symbol"], row, **moved)
    found = check_of(answer, "orders and fills")["first"]
    assert found[0]["rule"] == "a fill happens on a trade of its symbol"
    assert fill["id"] in [each["key"] for each in found]


@pytest.mark.parametrize(
    ("bars", "message"),
    [
        (pl.DataFrame({"price": [1.0]}), "must hold recorded bars"),
        (recorded().with_columns(timeframe=pl.lit("7m")), "must have a timeframe"),
    ],
)
def test_an_input_without_bars_is_refused(bars, message, backtest, tmp_path):
    bars.write_parquet(tmp_path / "odd.parquet")
    answer = verify("--folder", backtest / "out", "--input", tmp_path / "odd.parquet")
    assert answer.exit_code == 2
    assert message in answer.output


def test_an_input_belongs_to_a_folder(backtest):
    assert verify("--input", backtest / "bars.parquet").exit_code == 2
