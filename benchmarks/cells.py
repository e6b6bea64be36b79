"""A table of a paper beside what is counted here, cell by cell."""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchmarks import published

LIMIT = 0.01


@dataclass(frozen=True)
class Cell:
    """One entry of a table: what is counted here and what is printed there, "" where there is nothing to compare."""

    table: str
    row: str
    quantity: str
    ours: float | str
    theirs: str

    @property
    def difference(self) -> float | None:
        """Relative; None where one of them is not a number."""
        if isinstance(self.ours, str) or not self.theirs:
            return None
        return self.ours / float(self.theirs) - 1

    @property
    def explanation(self) -> str:
        """Why they differ by more than 1 %, "" where they do not.

        Raises:
            ValueError: nobody knows.
        """
        if self.difference is None:
            differs = bool(self.theirs) and isinstance(self.ours, str) and self.ours != self.theirs and self.ours != ""
        else:
            differs = abs(self.difference) > LIMIT
        if not differs:
            return ""
        if isinstance(self.ours, float):
            decimals = len(self.theirs.partition(".")[2])
            if f"{self.ours:.{decimals}f}" == self.theirs:
                return "rounds to what is printed"
            if math.floor(self.ours * 10**decimals) == round(float(self.theirs) * 10**decimals):
                return "cut off in print"
        row = self.row if (self.table, self.row, self.quantity) in published.EXPLANATIONS else self.row.split(",")[0]
        try:
            return published.EXPLANATIONS[self.table, row, self.quantity]
        except KeyError:
            raise ValueError(f"{self}: off by more than 1 %, and nothing explains it") from None


@dataclass(frozen=True)
class Table:
    """A table of a paper: its name here, a sentence about it, its cells row by row."""

    name: str
    caption: str
    cells: tuple[Cell, ...]
