"""Where a model's weights lie while it infers: in memory, or in their file, part by part when they compute.

Of weights that are mapped as they lie the system may take every page; they are not charged. What is changed
for speed (normalization folded into convolutions) is a copy, which is charged. Folding is the same map in
other roundings: scores are not the same bit for bit, and a pixel between two classes may go to the other.
"""

from __future__ import annotations

from typing import ClassVar


class Weights:
    """`HELD` ready for the fastest inference, or `MAPPED` and brought part by part."""

    name: ClassVar[str] = "weights"
    HELD: ClassVar[int] = 0
    MAPPED: ClassVar[int] = 1
    TOLERANCE: ClassVar[float] = 1e-5
    """By how much of the largest score those of the positions differ at most, in float32.

    In bfloat16 each differs by two percent from the truth, and they by as much from each other.
    """

    def __init__(self) -> None:
        self.exact = True  # up to rounding, as `base` says: see `TOLERANCE`

    def positions(self) -> list[int]:
        """`HELD`, then `MAPPED`."""
        return [self.HELD, self.MAPPED]
