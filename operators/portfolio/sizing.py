"""Sizes an entry by risk and cuts it to the caps; whole lots, exact decimals."""

from decimal import Decimal
from typing import NamedTuple

from schemas.trading import CheckMeasured, CheckVerdict

UNKNOWN = "unknown"


class Room(NamedTuple):
    """What a cap still allows an entry."""

    used_usd: Decimal
    """What the account's positions and pending orders take already."""
    limit_usd: Decimal
    price: Decimal
    """What one unit of quantity takes."""


def risk_lots(equity: Decimal, risk_pct: Decimal, distance: Decimal, lot_size: Decimal) -> int:
    """Return the lots whose loss is at most `risk_pct` of `equity` if the stop is `distance` away."""
    if not (distance > 0 and equity > 0):
        return 0
    return int(equity * risk_pct // (100 * distance * lot_size))


def cut_to_room(
    lots: int | None, lot_size: Decimal, room: Room | None, name: str
) -> tuple[int | None, CheckMeasured]:
    """Cut `lots` to what `room` allows and say so; what is unknown is denied.

    The measured value is what would be taken in all, before the cut. An entry that had at least
    one lot and keeps none is denied by this cap.
    """
    if lots is None or room is None or not _known(room):
        return None, _measured(name, UNKNOWN, UNKNOWN, CheckVerdict.DENIED)
    lot_price = room.price * lot_size
    taken = room.used_usd + lots * lot_price
    verdict = CheckVerdict.PASSED
    if not taken <= room.limit_usd and lots:
        allowed = (room.limit_usd - room.used_usd) // lot_price
        lots = max(0, min(lots, int(allowed)))
        verdict = CheckVerdict.RESIZED if lots else CheckVerdict.DENIED
    return lots, _measured(name, f"{taken:f}", f"{room.limit_usd:f}", verdict)


def _known(room: Room) -> bool:
    finite = room.used_usd.is_finite() and room.limit_usd.is_finite() and room.price.is_finite()
    return finite and room.price > 0


def _measured(name: str, measured: str, limit: str, verdict: CheckVerdict) -> CheckMeasured:
    return CheckMeasured(
        check=name,
        measured=measured,
        limit=limit,
        verdict=verdict,
        reason=name if verdict is CheckVerdict.DENIED else "",
    )
