"""How many threads decode at once: each holds the blocks that it works on. The order stays the same."""

from __future__ import annotations

from typing import ClassVar


class Threads:
    """All that are wanted, halved down to one."""

    name: ClassVar[str] = "threads"

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.exact = True

    def positions(self) -> list[int]:
        """Numbers of threads, most first."""
        numbers = [self.wanted]
        while numbers[-1] > 1:
            numbers.append(numbers[-1] // 2)
        return numbers
