"""Whether freed blocks stay in the heap for the next step, or go back to the system at once.

Measured on a U-Net of width 16, batch 8 of 192², two cores: 661 MiB and 0.42 s a step where they stay,
410 MiB and 0.76 s where they go back.
"""

from __future__ import annotations

from typing import ClassVar


class Heap:
    """`KEPT` is faster, `GIVEN_BACK` holds less; the numbers are the same."""

    name: ClassVar[str] = "heap"
    KEPT: ClassVar[int] = 0
    GIVEN_BACK: ClassVar[int] = 1

    def __init__(self, furthest: int = 1) -> None:
        self.furthest = furthest
        self.exact = True

    def positions(self) -> list[int]:
        """From `KEPT` to `furthest`."""
        return list(range(self.furthest + 1))
