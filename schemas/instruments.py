"""The instruments that a process knows, numbered so that hot frames carry one small integer."""

from collections.abc import Iterable

import polars as pl

from schemas.market import InstrumentListed


class InstrumentBook:
    """Instruments by number; numbers are local to the process and never leave it.

    The newest listing (largest `valid_from_ns`) of a `venue:symbol` counts. State that outlives the
    process is keyed by `venue:symbol`, never by number.
    """

    def __init__(self, listings: Iterable[InstrumentListed] = ()) -> None:
        self._listings: list[InstrumentListed] = []
        self._numbers: dict[tuple[str, str], int] = {}
        self._frame: pl.DataFrame | None = None
        for listing in listings:
            self.add(listing)

    def __len__(self) -> int:
        return len(self._listings)

    def __getitem__(self, number: int) -> InstrumentListed:
        return self._listings[number]

    def add(self, listing: InstrumentListed) -> int:
        """Add or replace a listing and return its number."""
        key = (listing.venue, listing.symbol)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._listings)
            self._listings.append(listing)
        elif listing.valid_from_ns >= self._listings[number].valid_from_ns:
            self._listings[number] = listing
        self._frame = None
        return number

    def number_of(self, venue: str, symbol: str) -> int | None:
        """Return the number of `venue:symbol`, or None if it is not listed."""
        return self._numbers.get((venue, symbol))

    @property
    def frame(self) -> pl.DataFrame:
        """One row per instrument: instrument, venue, symbol, price_scale, size_scale, valid_from_ns."""
        if self._frame is None:
            self._frame = pl.DataFrame(
                {
                    "instrument": range(len(self._listings)),
                    "venue": [listing.venue for listing in self._listings],
                    "symbol": [listing.symbol for listing in self._listings],
                    "price_scale": [10.0**listing.price_decimals for listing in self._listings],
                    "size_scale": [10.0**listing.size_decimals for listing in self._listings],
                    "valid_from_ns": [listing.valid_from_ns for listing in self._listings],
                },
                schema={
                    "instrument": pl.Int32(),
                    "venue": pl.String(),
                    "symbol": pl.String(),
                    "price_scale": pl.Float64(),
                    "size_scale": pl.Float64(),
                    "valid_from_ns": pl.Int64(),
                },
            )
        return self._frame
