"""IoU and Dice: over each image, then over images; pooled over pixels; per class, with support.

A class that is neither in an image's truth nor in its prediction has no IoU there and is left out of the
mean; it is never counted as 1. A class that is in no truth at all has no score, and a warning says so.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from caudal.core.messages import _
from caudal.tasks.base import Metrics


class SegmentationScorer:
    """Confusion counts of each image: (classes, classes) whole numbers, truth by row."""

    def __init__(self, class_names: tuple[str, ...]) -> None:
        self._names = class_names
        self._images: dict[int, npt.NDArray[np.int64]] = {}

    def add(self, image: int, predicted_HW: npt.NDArray[np.uint8], truth_HW: npt.NDArray[np.uint8]) -> None:
        """Take a piece of an image: class numbers; pixels whose truth or prediction is 255 do not count."""
        count = len(self._names)
        known = (truth_HW < count) & (predicted_HW < count)
        pairs = truth_HW[known].astype(np.int64) * count + predicted_HW[known]
        table = np.bincount(pairs, minlength=count * count).reshape(count, count)
        self._images[image] = self._images.get(image, np.zeros((count, count), np.int64)) + table

    def _tables(self) -> npt.NDArray[np.int64]:
        count = len(self._names)
        return (
            np.stack(list(self._images.values())) if self._images else np.zeros((0, count, count), np.int64)
        )

    def result(self) -> Metrics:
        """`iou`, `dice` (means over images of the mean over the classes but the first), `iou_pooled`,
        `dice_pooled`, `accuracy`, `images`, and `iou_<class>`, `dice_<class>`, `support_<class>` (pixels).
        """  # fmt: skip
        tables = self._tables()
        hits = np.diagonal(tables, axis1=1, axis2=2).astype(float)
        truth, predicted = tables.sum(2).astype(float), tables.sum(1).astype(float)
        iou, dice = _ratios(hits, truth, predicted)
        pooled_iou, pooled_dice = _ratios(hits.sum(0), truth.sum(0), predicted.sum(0))
        present = truth.sum(0) > 0
        pooled_iou[~present] = pooled_dice[~present] = np.nan
        total = truth.sum()
        metrics: Metrics = {
            "iou": _mean(_row_means(iou[:, 1:])),
            "dice": _mean(_row_means(dice[:, 1:])),
            "iou_pooled": _mean(pooled_iou[1:]),
            "dice_pooled": _mean(pooled_dice[1:]),
            "accuracy": float(hits.sum() / total) if total else None,
            "images": float(len(tables)),
        }
        if not present[1:].any():
            metrics["iou"] = metrics["dice"] = None
        for k, name in enumerate(self._names):
            metrics[f"iou_{name}"] = _mean(iou[:, k]) if present[k] else None
            metrics[f"dice_{name}"] = _mean(dice[:, k]) if present[k] else None
            metrics[f"support_{name}"] = float(truth[:, k].sum())
        return metrics

    def warnings(self) -> list[str]:
        """Names the classes that are in no truth that was scored."""
        truth = self._tables().sum((0, 2))
        absent = [name for name, pixels in zip(self._names, truth, strict=True) if not pixels]
        if not absent:
            return []
        return [
            _("Class {names} is in no mask that was scored, so it has no score.").format(
                names=", ".join(absent)
            )
        ]


def _ratios(
    hits: npt.NDArray[np.float64], truth: npt.NDArray[np.float64], predicted: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    union, both = truth + predicted - hits, truth + predicted
    with np.errstate(invalid="ignore", divide="ignore"):
        return (
            np.where(union > 0, hits / union, np.nan),
            np.where(both > 0, 2 * hits / both, np.nan),
        )


def _row_means(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    known = ~np.isnan(values)
    counts = known.sum(1)
    sums = np.where(known, values, 0.0).sum(1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _mean(values: npt.NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
