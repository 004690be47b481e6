"""Where a model's weights lie while it infers: in memory, or in their file, part by part when they compute.

Of weights that are mapped as they lie the system may take every page; they are not charged. What is changed
for speed (normalization folded into convolutions) is a copy, which is charged.
"""

from __future__ import annotations

from typing import ClassVar


class Weights:
    """`HELD` ready for the fastest inference, or `MAPPED` and brought part by part."""

    name: ClassVar[str] = "weights"
    HELD: ClassVar[int] = 0
    MAPPED: ClassVar[int] = 1

    def __init__(self) -> None:
        self.exact = True

    def positions(self) -> list[int]:
        """`HELD`, then `MAPPED`."""
        return [self.HELD, self.MAPPED]
