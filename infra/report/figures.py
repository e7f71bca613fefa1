"""The figures of a report as plain Plotly JSON.

Colours are names (`@entry`, `@grid`) that the page replaces by those of its light or dark scheme.
Numbers travel as base64 of float64, which Plotly reads, so that thousands of points stay small.
"""

from base64 import b64encode
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from infra.report.performance import BPS, HOUR_NS, holding_curve
from infra.report.session import BARS, SERIES, SessionTables
from schemas.trading import OrderFilled, OrderPurpose, OutcomeClosed, PositionChanged

Figure = dict[str, Any]
Trace = dict[str, Any]

CHART_POINTS_MAX = 2_000
CHART_POINTS_TOTAL = 30_000
CHART_SYMBOLS_MAX = 40
"""Symbols with a chart of their own, those with the most fills first."""

MARKERS_TOTAL = 4_000
"""Fills drawn, the newest, shared by the charts; the numbers count all of them."""

STOP_POINTS_TOTAL = 6_000

MILLISECOND_NS = 1_000_000
STRATEGY_COLOURS = ("@one", "@two", "@three", "@four", "@five", "@six", "@seven", "@eight")

PURPOSE_STYLES: dict[str, tuple[str, str, str]] = {
    OrderPurpose.ENTRY: ("entry", "triangle-up", "@entry"),
    OrderPurpose.EXIT: ("exit", "triangle-down", "@exit"),
    OrderPurpose.PROTECTIVE_STOP: ("protective stop", "x", "@stop"),
    OrderPurpose.TARGET: ("target", "star", "@target"),
}

FILLS = OrderFilled.topic


def packed(values: npt.ArrayLike) -> dict[str, str]:
    """Return `values` as float64 in base64, the form that Plotly reads without parsing digits."""
    array = np.ascontiguousarray(values, dtype="<f8")
    return {"dtype": "f8", "bdata": b64encode(array.tobytes()).decode()}


def milliseconds(times_ns: pl.Series) -> dict[str, str]:
    """Return instants as milliseconds, the unit of Plotly's time axis."""
    return packed(times_ns.to_numpy() / MILLISECOND_NS)


def layout(y_title: str, **changes: Any) -> dict[str, Any]:
    """Return the layout that all figures share."""
    axis = {"gridcolor": "@grid", "zerolinecolor": "@zero", "linecolor": "@grid"}
    return {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": "@text", "family": "system-ui, sans-serif", "size": 12},
        "margin": {"l": 64, "r": 16, "t": 12, "b": 40},
        "height": 340,
        "hovermode": "closest",
        "hoverlabel": {"font": {"family": "system-ui, sans-serif"}, "align": "left"},
        "legend": {"orientation": "h", "y": -0.16, "x": 0, "traceorder": "normal"},
        "xaxis": axis | {"type": "date"},
        "yaxis": axis | {"title": {"text": y_title}, "automargin": True},
    } | changes


def build_figures(session: SessionTables, summary: Figure) -> Figure:
    """Return every figure of the report, by its place on the page."""
    cash = Decimal(summary["performance"]["equity_start_usd"])
    worth = _curve(session, cash)
    held = _held(session, summary, cash)
    return {
        "prices": {
            f"{venue}:{symbol}": draw_price(session, venue, symbol)
            for venue, symbol in chart_symbols(session)
        },
        "equity": draw_equity(worth, held),
        "drawdown": draw_drawdown(worth, held),
        "funnel": draw_funnel(summary),
        "denials": draw_denials(summary),
        "pnl": draw_pnl(session, worth["time_ns"]),
        "returns": draw_histogram(session, "return_pct", 1.0, "return of a leg, %"),
        "holding": draw_histogram(session, "holding_ns", HOUR_NS, "holding time, hours"),
    }


def chart_symbols(session: SessionTables) -> list[tuple[str, str]]:
    """Return the series that get a chart: those with the most fills first."""
    counted = session[FILLS].group_by(SERIES).len().rows()
    fills = {(venue, symbol): count for venue, symbol, count in counted}
    known = session.traded or session.symbols
    return sorted(known, key=lambda key: (-fills.get(key, 0), key))[:CHART_SYMBOLS_MAX]


def draw_price(session: SessionTables, venue: str, symbol: str) -> Figure:
    """Return the price of one series with its fills and the protective stops behind them."""
    here = (pl.col("venue") == venue) & (pl.col("symbol") == symbol)
    charts = max(1, len(chart_symbols(session)))
    points = min(CHART_POINTS_MAX, CHART_POINTS_TOTAL // charts)
    bars = thin_bars(session[BARS].filter(here), points)
    times = milliseconds(bars["close_time_ns"])
    edge: Trace = {"type": "scatter", "mode": "lines", "x": times, "hoverinfo": "skip"}
    edge |= {"line": {"width": 0}, "showlegend": False}
    traces: list[Trace] = [
        edge | {"y": packed(bars["low"])},
        edge | {"y": packed(bars["high"]), "fill": "tonexty", "fillcolor": "@band"},
        {
            "type": "scatter",
            "mode": "lines",
            "name": "close",
            "x": times,
            "y": packed(bars["close"]),
            "line": {"color": "@price", "width": 1.4},
            "hovertemplate": "%{x|%Y-%m-%d %H:%M}<br>close %{y:,.8~g}<extra></extra>",
        },
    ]
    positions = session[PositionChanged.topic].filter(here)
    traces += _stop_trace(positions.tail(STOP_POINTS_TOTAL // charts))
    fills = session[FILLS].filter(here).tail(max(100, MARKERS_TOTAL // charts))
    traces += [
        _fill_trace(fills.filter(pl.col("purpose") == purpose), style)
        for purpose, style in PURPOSE_STYLES.items()
        if (fills["purpose"] == purpose).any()
    ]
    return {"data": traces, "layout": layout("price", height=440)}


def thin_bars(bars: pl.DataFrame, points_max: int) -> pl.DataFrame:
    """Return at most `points_max` bars that keep every high and low."""
    step = -(-bars.height // points_max) if points_max else 1
    if step <= 1:
        return bars.select("close_time_ns", "high", "low", "close")
    return (
        bars.group_by((pl.int_range(pl.len()) // step).alias("bucket"), maintain_order=True)
        .agg(
            pl.col("close_time_ns").last(),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close").last(),
        )
        .drop("bucket")
    )


def _stop_trace(positions: pl.DataFrame) -> list[Trace]:
    """Return the working stops of all strategies as one broken line."""
    x: list[float] = []
    y: list[float | None] = []
    for (_,), rows in positions.group_by(["strategy"], maintain_order=True):
        held: float | None = None
        for time_ns, stop in rows.select("event_time_ns", "stop_price").rows():
            level = None if stop is None else float(stop)
            if level is None and held is not None:
                # A level lasts until the record that ends it.
                x.append(time_ns / MILLISECOND_NS)
                y.append(held)
            x.append(time_ns / MILLISECOND_NS)
            y.append(level)
            held = level
        x.append(x[-1])
        y.append(None)
    if all(level is None for level in y):
        return []
    line = {"color": "@stop", "width": 1.2, "dash": "dot", "shape": "hv"}
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "working stop",
            "x": x,
            "y": y,
            "line": line,
            "connectgaps": False,
            "hovertemplate": "stop %{y:,.8~g}<extra></extra>",
        }
    ]


def _fill_trace(fills: pl.DataFrame, style: tuple[str, str, str]) -> Trace:
    name, shape, colour = style
    labels = [
        f"{row['strategy']}<br>{row['side']} {format_plain(row['quantity'])}"
        f"<br>fee {format_plain(row['fee'])}<br>{row['id']}"
        for row in fills.select("strategy", "side", "quantity", "fee", "id").to_dicts()
    ]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": milliseconds(fills["event_time_ns"]),
        "y": packed(fills["price"].cast(pl.Float64)),
        "text": labels,
        "marker": {
            "symbol": shape,
            "color": colour,
            "size": 10,
            "line": {"width": 1, "color": "@page"},
        },
        "hovertemplate": f"PAPER {name} at %{{y:,.8~g}}<br>%{{x|%Y-%m-%d %H:%M:%S}}<br>%{{text}}"
        "<extra></extra>",
    }


def format_plain(amount: Decimal) -> str:
    """Return an amount without padding zeros or exponent."""
    return format(amount.normalize(), "f")


def _curve(session: SessionTables, cash: Decimal) -> pl.DataFrame:
    """Return `time_ns`, `worth` and `drawdown_pct` of the account, thinned, troughs kept."""
    rows = session[PositionChanged.topic].select(
        time_ns="event_time_ns", worth=pl.col("equity").cast(pl.Float64)
    )
    return _with_drawdown(rows, float(cash))


def _held(session: SessionTables, summary: Figure, cash: Decimal) -> pl.DataFrame:
    held = summary["buy_and_hold"]
    kept = float(cash) * (1.0 - (held["costs_bps"] or 0.0) / BPS)
    curve = holding_curve(session, held["start_ns"])
    rows = curve.select("time_ns", worth=pl.col("growth") * kept)
    return _with_drawdown(rows, float(cash))


def _with_drawdown(rows: pl.DataFrame, start: float) -> pl.DataFrame:
    step = max(1, -(-rows.height // CHART_POINTS_MAX))
    peak = pl.max_horizontal(pl.col("worth").cum_max(), pl.lit(start))
    return (
        rows.with_columns(drawdown_pct=(pl.col("worth") / peak - 1.0) * 100)
        .group_by((pl.int_range(pl.len()) // step).alias("bucket"), maintain_order=True)
        .agg(pl.col("time_ns", "worth").last(), pl.col("drawdown_pct").min())
        .drop("bucket")
    )


def _line(frame: pl.DataFrame, column: str, name: str, colour: str, **changes: Any) -> Trace:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": milliseconds(frame["time_ns"]),
        "y": packed(frame[column]),
        "line": {"color": colour, "width": 2},
    } | changes


def draw_equity(worth: pl.DataFrame, held: pl.DataFrame) -> Figure:
    """Return the account's equity beside buy-and-hold."""
    hover = "%{x|%Y-%m-%d %H:%M}<br>%{y:,.2f} USD"
    mine = {"shape": "hv", "color": "@account", "width": 2}
    other = {"color": "@held", "width": 1.6, "dash": "dash"}
    traces = [
        _line(worth, "worth", "account (PAPER)", "@account", line=mine, hovertemplate=hover),
        _line(held, "worth", "buy and hold", "@held", line=other, hovertemplate=hover),
    ]
    return {"data": traces, "layout": layout("equity, USD")}


def draw_drawdown(worth: pl.DataFrame, held: pl.DataFrame) -> Figure:
    """Return the distance from the peak so far, account beside buy-and-hold."""
    hover = "%{x|%Y-%m-%d %H:%M}<br>%{y:.2f} %"
    filled = {"fill": "tozeroy", "fillcolor": "@shade", "hovertemplate": hover}
    other = {"color": "@held", "width": 1.4, "dash": "dash"}
    traces = [
        _line(worth, "drawdown_pct", "account (PAPER)", "@stop", **filled),
        _line(held, "drawdown_pct", "buy and hold", "@held", line=other, hovertemplate=hover),
    ]
    return {"data": traces, "layout": layout("below the peak, %", height=260)}


def draw_funnel(summary: Figure) -> Figure:
    """Return how many records passed each stage, on a scale that shows the small ones."""
    stages = summary["funnel"]["stages"]
    shown = layout("", margin={"l": 8, "r": 16, "t": 12, "b": 24}, height=300, showlegend=False)
    return {
        "data": [
            {
                "type": "bar",
                "orientation": "h",
                "y": [stage["stage"] for stage in stages],
                "x": [stage["records"] for stage in stages],
                "text": [f"{stage['records']:,}" for stage in stages],
                "textposition": "auto",
                "insidetextfont": {"color": "@page"},
                "outsidetextfont": {"color": "@text"},
                "marker": {"color": ["@one", "@two", "@three", "@four", "@five"]},
                "hovertemplate": "%{y}: %{x:,}<extra></extra>",
            }
        ],
        "layout": shown
        | {
            "xaxis": {"type": "linear", "gridcolor": "@grid", "rangemode": "tozero"},
            "yaxis": {"autorange": "reversed", "automargin": True},
        },
    }


def draw_denials(summary: Figure) -> Figure:
    """Return why signals were not traded, the most frequent reason on top, by strategy."""
    rows = summary["not_traded"]
    names = sorted({name for row in rows for name in row["by_strategy"]})
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": [row["reason"] for row in rows],
            "x": [row["by_strategy"].get(name, 0) for row in rows],
            "customdata": [row["meaning"] for row in rows],
            "marker": {"color": strategy_colour(names, name)},
            "hovertemplate": "%{y}: %{x:,}<br>%{customdata}<extra>%{fullData.name}</extra>",
        }
        for name in names
    ]
    height = max(220, 90 + 30 * len(rows))
    shown = layout("", barmode="stack", height=height, margin={"l": 8, "r": 16, "t": 12, "b": 24})
    return {
        "data": traces,
        "layout": shown
        | {
            "xaxis": {"type": "linear", "gridcolor": "@grid", "rangemode": "tozero"},
            "yaxis": {"autorange": "reversed", "automargin": True},
            "legend": shown["legend"] | {"y": -24 / height - 0.08},
        },
    }


def strategy_colour(names: list[str], name: str) -> str:
    """Return the colour of a strategy, the same in every figure."""
    return STRATEGY_COLOURS[names.index(name) % len(STRATEGY_COLOURS)]


def draw_pnl(session: SessionTables, times_ns: pl.Series) -> Figure:
    """Return the running sum of realised profit of every strategy, after fees.

    Every line spans `times_ns`, the times of the equity curve.
    """
    legs = session[OutcomeClosed.topic]
    names = sorted({*legs["strategy"].unique(), *session["trade.decisions"]["strategy"].unique()})
    traces = []
    for name in names:
        mine = legs.filter(pl.col("strategy") == name).select(
            time_ns="event_time_ns", net=pl.col("net_pnl").cast(pl.Float64).cum_sum()
        )
        if mine.is_empty():
            continue
        spanned = pl.DataFrame(
            {
                "time_ns": [times_ns.min(), *mine["time_ns"], times_ns.max()],
                "net": [0.0, *mine["net"], mine["net"][-1]],
            }
        ).drop_nulls()
        line = {"shape": "hv", "color": strategy_colour(names, name), "width": 2}
        hover = "%{x|%Y-%m-%d %H:%M}<br>%{y:,.2f} USD"
        traces.append(_line(spanned, "net", name, "", line=line, hovertemplate=hover))
    return {"data": traces, "layout": layout("realised, USD")}


def draw_histogram(session: SessionTables, column: str, unit: float, title: str) -> Figure:
    """Return the distribution of a column of the closed legs, by strategy."""
    legs = session[OutcomeClosed.topic]
    names = sorted({*legs["strategy"].unique(), *session["trade.decisions"]["strategy"].unique()})
    values = (legs[column].cast(pl.Float64) / unit).to_numpy()
    edges = np.histogram_bin_edges(values, bins=min(40, max(8, values.size // 4)))
    shown = layout("closed legs", barmode="stack", bargap=0.04, height=300)
    traces = [
        {
            "type": "bar",
            "name": name,
            "x": packed((edges[:-1] + edges[1:]) / 2),
            "y": packed(np.histogram(values[(legs["strategy"] == name).to_numpy()], edges)[0]),
            "marker": {"color": strategy_colour(names, name)},
            "hovertemplate": f"around %{{x:.2f}}: %{{y}}<br>{title}",
        }
        for name in names
        if values.size
    ]
    return {
        "data": traces,
        "layout": shown
        | {
            "xaxis": {"type": "linear", "gridcolor": "@grid", "title": {"text": title}},
            "legend": shown["legend"] | {"y": -0.28},
        },
    }
