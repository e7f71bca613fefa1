"""Figures as people read them; what is not known is `n/a`, never a zero."""

from decimal import Decimal

UNKNOWN = "n/a"


def amount(value: str | Decimal | None, *, signed: bool = False) -> str:
    """Return an amount of money with two decimals and a sign if asked; a zero has none."""
    if value is None:
        return UNKNOWN
    rounded = round(Decimal(value), 2) or Decimal("0.00")
    return f"{rounded:+,.2f}" if signed and rounded else f"{rounded:,.2f}"


def percent(value: float | None, decimals: int = 2, *, signed: bool = True) -> str:
    """Return a percentage, signed unless it is a share; a zero has no sign."""
    if value is None:
        return UNKNOWN
    rounded = round(value, decimals) or 0.0
    return f"{rounded:+.{decimals}f}%" if signed and rounded else f"{rounded:.{decimals}f}%"


def number(value: float | None, decimals: int = 2) -> str:
    """Return a number with a fixed count of decimals."""
    return UNKNOWN if value is None else f"{value:,.{decimals}f}"
