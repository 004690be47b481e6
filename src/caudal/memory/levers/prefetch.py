"""How many batches are decoded before they are asked for. The order stays the same."""

from __future__ import annotations

from typing import ClassVar


class Prefetch:
    """From `wanted` batches ahead down to one."""

    name: ClassVar[str] = "prefetch"

    def __init__(self, wanted: int) -> None:
        self.wanted = max(1, wanted)
        self.exact = True

    def positions(self) -> list[int]:
        """Numbers of batches, most first."""
        return list(range(self.wanted, 0, -1))
