"""The contract of a lever: positions in order of price, and whether the numbers stay the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol


class Lever(Protocol):
    """One thing that can be set to use less memory."""

    name: ClassVar[str]
    exact: bool
    """Whether every position gives the same losses and gradients, up to rounding."""

    def positions(self) -> Sequence[int | str]:
        """What it can be set to, the dearest in memory first."""
        ...
