"""Areas under curves, from counts of scores in bins: no score is needed, and the error is known.

Two scores in one bin count as equal. What that can change is bounded by the weight that normal and
anomalous scores have in common bins, and each area comes with that bound.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from caudal.tasks.anomaly.histogram import Floats


class Area(NamedTuple):
    """An area from 0 to 1; the area of the scores themselves is at most `error` away."""

    value: float
    error: float


def area_under_roc(normal: Floats, anomalous: Floats) -> Area | None:
    """The chance that an anomalous score is above a normal one, equal ones counting half.

    `normal` and `anomalous` are weights by bin, bins in the order of scores. `None` where one is empty.
    """
    both = normal.sum() * anomalous.sum()
    if not both > 0:
        return None
    below = np.cumsum(normal) - normal
    tied = float((normal * anomalous).sum() / both)
    return Area(float((anomalous * below).sum() / both) + tied / 2, tied / 2)


def area_under_pro(normal: Floats, regions: Floats, limit: float = 0.3) -> Area | None:
    """Per-region overlap over the false-positive rate, integrated up to `limit` and divided by it.

    (Bergmann, Fauser, Sattlegger and Steger, CVPR 2019 and IJCV 2021.) `normal` counts pixels that are not
    anomalous by bin; `regions` does so for anomalous pixels, each weighted with 1 / the pixels of its region,
    so that every region weighs the same. Between thresholds the curve is a straight line. `None` where there
    is no normal pixel or no region.
    """
    if not (normal.sum() > 0 and regions.sum() > 0):
        return None
    used = np.flatnonzero((normal > 0) | (regions > 0))[::-1]
    rate = np.concatenate([[0.0], np.cumsum(normal[used]) / normal.sum()])
    overlap = np.concatenate([[0.0], np.cumsum(regions[used]) / regions.sum()])
    end = int(np.searchsorted(rate, limit, side="right"))
    above = float(overlap[min(end, len(overlap) - 1)])
    edge = float(np.interp(limit, rate, overlap))
    rate = np.append(rate[:end], limit)
    overlap = np.append(overlap[:end], edge)
    wide = np.diff(rate)
    value = float((wide * (overlap[1:] + overlap[:-1])).sum() / 2 / limit)
    # Inside a bin the curve can be anywhere in the box whose diagonal is the straight line.
    tops = np.append(overlap[1:-1], above)
    error = float((wide * (tops - (overlap[1:] + overlap[:-1]) / 2)).sum() / limit)
    return Area(value, min(1.0, error))
