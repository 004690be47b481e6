"""How many decoded samples wait in the arena to be drawn: fewer mix less well, none changes the loss."""

from __future__ import annotations

from typing import ClassVar


class ShuffleBytes:
    """Open blocks, halved down to the fewest that still keep the threads busy."""

    name: ClassVar[str] = "shuffle_bytes"

    def __init__(self, wanted: int, least: int = 2) -> None:
        self.wanted = max(wanted, least)
        self.least = least
        self.exact = False  # another order of samples is another run, however good

    def positions(self) -> list[int]:
        """Numbers of open blocks, most first."""
        sizes = [self.wanted]
        while sizes[-1] > self.least:
            sizes.append(max(self.least, sizes[-1] // 2))
        return sizes
