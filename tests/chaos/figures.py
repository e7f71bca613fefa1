"""What a chaos run did and found, as one table."""

import time

from msgspec import Struct, field


class Row(Struct, frozen=True, kw_only=True):
    """One kind of fault."""

    fault: str
    fired: str
    result: str
    figures: str


class Figures(Struct, kw_only=True):
    """Rows in the order in which they were found."""

    seed: int
    rows: list[Row] = field(default_factory=list)

    def add(self, fault: str, fired: str, result: str, figures: str) -> None:
        """Add what one test found."""
        self.rows.append(Row(fault=fault, fired=fired, result=result, figures=figures))

    def table(self) -> str:
        """Return Markdown."""
        lines = [
            f"Seed {self.seed}, {time.strftime('%Y-%m-%d', time.gmtime())}.",
            "",
            "| fault | fired | result | figures |",
            "| --- | --- | --- | --- |",
            *(f"| {row.fault} | {row.fired} | {row.result} | {row.figures} |" for row in self.rows),
        ]
        return "\n".join(lines) + "\n"
