"""What every figure here agrees upon: how an undefined one is said, and which scores are refused."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from caudal.core.errors import BadValues
from caudal.core.messages import _

Floats = npt.NDArray[np.float64]


def figure(value: float | Floats) -> float | None:
    """A figure as people are shown it: `None` where the data do not define one (inside: NaN)."""
    return None if np.isnan(value) else float(value)


def ratio(part: Floats, whole: Floats) -> Floats:
    """`part / whole`, NaN where `whole` is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(whole > 0, part / whole, np.nan)


def check_finite(scores: npt.NDArray[np.floating]) -> None:
    """Refuse scores that cannot be put in order.

    Raises:
        BadValues: a score is NaN or infinite.
    """
    broken = int(scores.size - np.isfinite(scores).sum())
    if broken:
        raise BadValues(
            _("{broken} of {count} scores are not numbers.").format(broken=broken, count=scores.size),
            _("The training has diverged: lower training.learning_rate and train again."),
            broken=broken,
        )
