"""Where the optimizer's state lies: two numbers a weight, which a step needs for a moment at its end.

Elsewhere is a mapped file beside the run on the CPU (on another disk where the run's folder lies in memory),
whose pages the system may take, and the host's memory beside a device. The kernels and the numbers are the
same; a step waits for the bytes to come and go.
"""

from __future__ import annotations

from typing import ClassVar


class OptimizerState:
    """`HERE` with the weights, or `ELSEWHERE` where that is `possible`."""

    name: ClassVar[str] = "optimizer_state"
    HERE: ClassVar[int] = 0
    ELSEWHERE: ClassVar[int] = 1

    def __init__(self, possible: bool = True) -> None:
        self.possible = possible
        self.exact = True

    def positions(self) -> list[int]:
        """`HERE`, and `ELSEWHERE` where it is possible."""
        return [self.HERE, self.ELSEWHERE] if self.possible else [self.HERE]
