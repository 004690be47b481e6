"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math


def learning_rate(step: int, steps: int, peak: float, warm_up: float) -> float:
    """Linear rise over `warm_up` of the steps, then half a cosine to zero (Loshchilov and Hutter, 2017)."""
    rise = max(1, round(warm_up * steps))
    if step < rise:
        return peak * (step + 1) / rise
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))
