"""The numbers that a model computes in: half as wide, half the activations, and other losses."""

from __future__ import annotations

from typing import ClassVar


class Precision:
    """What was chosen for speed, then `bf16`: only where the user left the choice open."""

    name: ClassVar[str] = "precision"

    def __init__(self, chosen: str, asked: str = "auto") -> None:
        self.chosen, self.asked = chosen, asked
        self.exact = False

    def positions(self) -> list[str]:
        """Names of precisions, the widest first."""
        return ["fp32", "bf16"] if (self.chosen, self.asked) == ("fp32", "auto") else [self.chosen]
