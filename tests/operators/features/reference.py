"""Independent one-shot computations of every feature of one series: TA-Lib, else polars and numpy.

Shares no code with the kernel. Input: the bars of one series in time order.
"""

import numpy as np
import polars as pl
import talib


def talib_features(bars: pl.DataFrame) -> dict[str, np.ndarray]:
    """Features for which TA-Lib has a function; its unset leading values are NaN."""
    high, low, close, volume = (
        bars[name].to_numpy() for name in ("high", "low", "close", "volume")
    )
    out = {f"sma_{n}": talib.SMA(close, n) for n in (7, 14, 20, 30, 50)}
    out |= {f"ema_{n}": talib.EMA(close, n) for n in (7, 9, 14, 21, 30, 50, 200)}
    out |= {f"momentum_{n}": talib.MOM(close, n) for n in (5, 10, 20)}
    macd = talib.MACD(close, 12, 26, 9)
    out |= dict(zip(("macd", "macd_signal", "macd_hist"), macd, strict=True))
    # Equal to STOCH(14, slowk_period=1, slowk_matype=0, slowd_period=3, slowd_matype=0).
    stochastic = talib.STOCHF(high, low, close, fastk_period=14, fastd_period=3, fastd_matype=0)
    out["stoch_d"] = stochastic[1]
    # TA-Lib withholds the first values of K until D has one.
    slow = talib.STOCH(high, low, close, 14, 1, 0, 1, 0)
    out["stoch_k"] = slow[0]
    bands = talib.BBANDS(close, 20, 2, 2, 0)
    out |= dict(zip(("bb_upper", "bb_middle", "bb_lower"), bands, strict=True))
    # TA-Lib starts the balance with the first volume, we with zero.
    out["obv"] = talib.OBV(close, volume) - volume[0]
    return out | {
        "rsi_14": talib.RSI(close, 14),
        "roc_10": talib.ROC(close, 10),
        "adx_14": talib.ADX(high, low, close, 14),
        "plus_di": talib.PLUS_DI(high, low, close, 14),
        "minus_di": talib.MINUS_DI(high, low, close, 14),
        "atr_14": talib.ATR(high, low, close, 14),
        "volume_sma_20": talib.SMA(volume, 20),
        "obv_ema": talib.EMA(out["obv"], 20),
    }


def polars_features(bars: pl.DataFrame) -> dict[str, np.ndarray]:
    """Features without a TA-Lib function, in one pass of polars expressions."""
    open_, high, low, close, volume = (
        pl.col(name) for name in ("open", "high", "low", "close", "volume")
    )
    body, top, bottom = (
        (close - open_).abs(),
        pl.max_horizontal("open", "close"),
        pl.min_horizontal("open", "close"),
    )
    change = close / close.shift(1) - 1
    flags = {
        "is_doji": body / (high - low) < 0.1,
        "is_hammer": (bottom - low > 2 * body) & (body > 0),
        "is_engulfing": body > body.shift(1) * 1.5,
        "gap_up": low > high.shift(1),
        "gap_down": high < low.shift(1),
    }
    frame = bars.select(
        returns=change,
        log_returns=(close / close.shift(1)).log(),
        price_range=(high - low) / close,
        body_size=body / close,
        upper_wick=(high - top) / close,
        lower_wick=(bottom - low) / close,
        volatility_7=change.rolling_std(7),
        volatility_24=change.rolling_std(24),
        volatility_30=change.rolling_std(30),
        volume_ratio=volume / volume.rolling_mean(20),
        vpt=(change * volume).fill_null(0).cum_sum(),
        acceleration=(close - close.shift(5)) - (close.shift(1) - close.shift(6)),
        relative_spread=(high - low) / ((high + low) / 2),
        signed_flow=(2 * pl.col("buy_volume") - volume) / volume,
        spread_bps=pl.col("spread_bps_mean"),
        **{name: flag.cast(pl.Float64) for name, flag in flags.items()},
    )
    return {name: frame[name].to_numpy() for name in frame.columns} | _derived(bars)


def _derived(bars: pl.DataFrame) -> dict[str, np.ndarray]:
    close = bars["close"].to_numpy()
    windows = np.lib.stride_tricks.sliding_window_view(close, 20)
    full = np.full(19, np.nan)
    middle = np.concatenate([full, windows.mean(axis=1)])
    deviation = np.concatenate([full, windows.std(axis=1)])
    library = talib_features(bars)
    distances = {
        f"ema_{n}_dist": (close - library[f"ema_{n}"]) / library[f"ema_{n}"]
        for n in (9, 21, 50, 200)
    }
    return distances | {
        "bb_width": 4 * deviation / middle,
        "bb_position": (close - (middle - 2 * deviation)) / (4 * deviation),
        "atr_pct": library["atr_14"] / close,
    }


def all_features(bars: pl.DataFrame) -> dict[str, np.ndarray]:
    """Every computed feature of one series."""
    return talib_features(bars) | polars_features(bars)


def scaled_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference where both have a value: absolute up to 1, relative above."""
    both = ~(np.isnan(found) | np.isnan(expected))
    scale = np.maximum(1.0, np.abs(expected[both]))
    return float(np.max(np.abs(found[both] - expected[both]) / scale, initial=0.0))
