"""The side of the patches that are learned from: smaller ones see less around a pixel.

It changes what is learned, so it comes last, and only where the user left the choice open.
"""

from __future__ import annotations

from typing import ClassVar


class Patch:
    """`chosen_px`, halved down to `least_px`; `chosen_px` alone where it was asked for."""

    name: ClassVar[str] = "patch"

    def __init__(self, chosen_px: int, asked_px: int = 0, least_px: int = 32) -> None:
        self.chosen_px, self.asked_px, self.least_px = chosen_px, asked_px, least_px
        self.exact = False

    def positions(self) -> list[int]:
        """Sides in pixels, largest first."""
        sides = [self.chosen_px]
        while not self.asked_px and sides[-1] // 2 >= self.least_px and sides[-1] % 2 == 0:
            sides.append(sides[-1] // 2)
        return sides
