"""Round numbers for axes, and numbers as people read them."""

from __future__ import annotations

import math

from caudal.core.messages import _
from caudal.core.units import Bytes

Ticks = list[tuple[float, str]]

_TIME_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)
_DASH = "—"


def round_step(span: float, most: int) -> float:
    """The least of 1, 2, 5 × a power of ten that cuts `span` into at most `most` parts."""
    rough = span / most
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))


def ticks(low: float, high: float, most: int = 5) -> Ticks:
    """Round values in [low, high] with just the decimals that they need."""
    if not high > low:
        return [(low, f"{low:.3g}")]
    step = round_step(high - low, most)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    if decimals > 4:
        return [((first + k) * step, f"{(first + k) * step:.0e}") for k in range(count)]
    return [((first + k) * step, f"{(first + k) * step:.{decimals}f}") for k in range(count)]


def whole_ticks(high: float, most: int = 5) -> Ticks:
    """Round whole numbers from 0 to `high`."""
    step = max(1.0, round_step(max(high, 1.0), most))
    return [(k * step, grouped(k * step)) for k in range(math.floor(high / step) + 1)]


def byte_ticks(high: float, most: int = 5) -> Ticks:
    """Sizes from 0 to `high`, in steps of a power of two."""
    step = 2 ** math.ceil(math.log2(max(high, 1.0) / most))
    return [(k * step, str(Bytes(k * step)) if k else "0") for k in range(math.floor(high / step) + 1)]


def time_ticks(high: float, most: int = 6) -> Ticks:
    """Times from 0 to `high` seconds, in the steps of a clock."""
    step = next((s for s in _TIME_STEPS if high / s <= most), math.ceil(high / most / 86400) * 86400)
    return [(k * step, seconds(k * step)) for k in range(math.floor(high / step) + 1)]


def seconds(value: float) -> str:
    """A time in its two largest units: `42 s`, `3 min 20 s`, `1 h 5 min`."""
    if value < 10 and value != int(value):
        return f"{value:.1f} s"
    whole = round(value)
    for size, small, names in ((86400, 3600, ("d", "h")), (3600, 60, ("h", "min")), (60, 1, ("min", "s"))):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size} {names[0]}" + (f" {rest} {names[1]}" if rest else "")
    return f"{whole} s"


def grouped(value: float) -> str:
    """A whole number with thin spaces between thousands."""
    return f"{round(value):,}".replace(",", "\u202f")


def figure(value: float | None) -> str:
    """A figure between 0 and 1 with three decimals, another with four digits; a dash for none."""
    if value is None:
        return _DASH
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}"


def percent(share: float) -> str:
    """A share as `1.4 %`."""
    value = 100 * share
    return f"{value:.1f} %" if abs(value) < 10 else f"{value:.0f} %"


def deviation(measured: float, promised: float) -> str:
    """How far a measured value is from a promised one, in words."""
    if not promised:
        return ""
    off = measured / promised - 1
    if abs(off) < 0.0005:
        return _("as predicted")
    text = _("{share} above the prediction") if off > 0 else _("{share} below the prediction")
    return text.format(share=percent(abs(off)))
