"""Activations that are computed again on the way back instead of being kept: same numbers, more time.

Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016. The finest level of a network holds most
and is computed fast, so it goes first; where all layers are alike they are one level. Alone it brings little
where the heap keeps what was freed; it is looked at together with the lever `heap`.
"""

from __future__ import annotations

from typing import ClassVar


class Checkpointing:
    """How many of a model's `levels`, from the finest on: none, the finest, all."""

    name: ClassVar[str] = "checkpointing"

    def __init__(self, levels: int) -> None:
        self.levels = levels
        self.exact = True

    def positions(self) -> list[int]:
        """Numbers of levels, fewest first."""
        return sorted({0, min(1, self.levels), self.levels})
