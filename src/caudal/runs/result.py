"""How a verb ended: the same keys for every one of them."""

from __future__ import annotations

from caudal.core.config import Frozen


class Result(Frozen):
    """What a verb gives back, and what `--json` prints; keys that do not apply are left out.

    `metrics` are flat; `predicted_bytes`, `peak_bytes` and `budget_bytes` have one figure a pool; `stall`
    is the share of the time in which the model waited for data; `acts` what was done about memory on the way.
    """

    verb: str
    run: str | None = None
    output: str | None = None
    metrics: dict[str, float | None] | None = None
    budget_bytes: dict[str, int] | None = None
    predicted_bytes: dict[str, int] | None = None
    peak_bytes: dict[str, int] | None = None
    seconds: float | None = None
    samples_per_second: float | None = None
    stall: float | None = None
    levers: dict[str, str] | None = None
    acts: tuple[str, ...] | None = None
    warnings: tuple[str, ...] = ()
