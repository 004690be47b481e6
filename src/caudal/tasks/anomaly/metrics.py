"""How well a map of scores tells anomalies from what is normal: by image, by pixel, by region.

Holds one number an image and counts of pixels in bins, whatever the pixels. Which scores are too high is said
by thresholds that were set elsewhere, on normal data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from caudal.core.labels import IGNORE
from caudal.core.messages import _
from caudal.tasks.anomaly.curves import Area, area_under_pro, area_under_roc
from caudal.tasks.anomaly.histogram import BINS, Floats, ScoreHistogram, bin_of
from caudal.tasks.anomaly.regions import Regions
from caudal.tasks.base import Metrics
from caudal.tasks.metrics.figures import figure
from caudal.tasks.metrics.ranking import Ranking, auroc

Scores = npt.NDArray[np.floating]
Truth = npt.NDArray[np.uint8]


@dataclass(slots=True)
class _Image:
    """What is left of one image: its highest score, and whether it is anomalous (`None`: not known)."""

    score: float = -np.inf
    anomalous: bool | None = None

    def see(self, score: float, anomalous: bool | None) -> None:
        self.score = max(self.score, score)
        if anomalous is not None:
            self.anomalous = bool(self.anomalous) or anomalous


@dataclass(slots=True)
class _Decided:
    """How decisions at a threshold met the truth, in counts."""

    hits: int = 0
    false: int = 0
    missed: int = 0
    right: int = 0

    def see(self, above: npt.NDArray[np.bool_], anomalous: npt.NDArray[np.bool_]) -> None:
        hits, alarms, all_of_them = int((above & anomalous).sum()), int(above.sum()), int(anomalous.sum())
        self.hits += hits
        self.false += alarms - hits
        self.missed += all_of_them - hits
        self.right += above.size - alarms - all_of_them + hits

    def f1(self) -> float | None:
        """`None` where there is nothing to find."""
        if not self.hits + self.missed:
            return None
        return 2 * self.hits / (2 * self.hits + self.false + self.missed)

    def false_alarms(self) -> float | None:
        """The share of what is normal that was taken for an anomaly."""
        normal = self.false + self.right
        return self.false / normal if normal else None


class AnomalyScorer:
    """Gathers maps of scores. `image_threshold` and `pixel_threshold`: a score above them is an alarm."""

    def __init__(self, image_threshold: float | None = None, pixel_threshold: float | None = None) -> None:
        self._image_threshold, self._pixel_threshold = image_threshold, pixel_threshold
        self._images: dict[int, _Image] = {}
        self._normal, self._anomalous = ScoreHistogram.empty(), ScoreHistogram.empty()
        self._by_region = np.zeros(BINS)
        self._regions = 0
        self._regions_of_image = Regions()
        self._joining: int | None = None
        self._normal_sum = 0.0
        self._pixels = _Decided()
        self._scored_px = self._alarm_px = 0
        self._without_mask: set[int] = set()

    def add(
        self,
        image: int,
        scores_HW: Scores,
        truth_HW: Truth | None = None,
        anomalous: bool | None = None,
        at: tuple[int, int] | None = None,
    ) -> None:
        """Take the scores of an image, or of a piece of one; NaN where there is none.

        `truth_HW` is 0 where a pixel is normal, 255 where nobody knows, else anomalous. `anomalous` labels
        an image as a whole: without a mask, all pixels of one that is not anomalous are normal, and those of
        one that is are not known. A region is a set of anomalous pixels that touch, corners included.

        `at` is the row and column of a piece in its image, whose pieces then come one after the other, from
        left to right and from above to below: a region that lies in several counts once. Without it, it
        counts once in each.
        """
        scored_HW = np.isfinite(scores_HW)
        if not scored_HW.any():
            return
        if truth_HW is None:
            self._add_labels_alone(image, scores_HW[scored_HW], anomalous)
            return
        known_HW = scored_HW & (truth_HW != IGNORE)
        wrong_HW = known_HW & (truth_HW != 0)
        seen = bool(wrong_HW.any()) if known_HW.any() else None
        self._see(image, scores_HW[scored_HW], anomalous if seen is None else seen or bool(anomalous))
        self._add_normal(scores_HW[known_HW & ~wrong_HW])
        if self._pixel_threshold is not None:
            self._pixels.see(scores_HW[known_HW] > self._pixel_threshold, wrong_HW[known_HW])
        if seen:
            self._anomalous.add(scores_HW[wrong_HW])
        if seen or self._joining == image:
            self._add_regions(image, scores_HW, wrong_HW, at)

    def _add_labels_alone(self, image: int, scores: Scores, anomalous: bool | None) -> None:
        self._see(image, scores, anomalous)
        if anomalous:
            self._without_mask.add(image)
        if anomalous is False:
            self._add_normal(scores)
            if self._pixel_threshold is not None:
                self._pixels.see(scores > self._pixel_threshold, np.zeros(scores.shape, np.bool_))

    def _see(self, image: int, scores: Scores, anomalous: bool | None) -> None:
        self._images.setdefault(image, _Image()).see(float(scores.max()), anomalous)
        self._scored_px += scores.size
        if self._pixel_threshold is not None:
            self._alarm_px += int((scores > self._pixel_threshold).sum())

    def _add_normal(self, scores: Scores) -> None:
        self._normal.add(scores)
        self._normal_sum += float(scores.sum(dtype=np.float64))

    def _add_regions(
        self, image: int, scores_HW: Scores, wrong_HW: npt.NDArray[np.bool_], at: tuple[int, int] | None
    ) -> None:
        if at is None or image != self._joining:
            self._finish_regions()
        row, col = at or (0, 0)
        self._count(*self._regions_of_image.add(row, col, wrong_HW, bin_of(scores_HW[wrong_HW])))
        self._joining = image
        if at is None:
            self._finish_regions()

    def _finish_regions(self) -> None:
        """Count what is held of an image that is over."""
        self._count(*self._regions_of_image.finish())
        self._regions_of_image, self._joining = Regions(), None

    def _count(self, weights: Floats, regions: int) -> None:
        self._by_region += weights
        self._regions += regions

    def decide(self, image_threshold: float, pixel_threshold: float, alarms_px: int) -> None:
        """Set thresholds that were learned from the very scores that were added, all of them normal.

        Of these `alarms_px` are above `pixel_threshold`: they need not be seen again to be counted.
        """
        assert not any(image.anomalous for image in self._images.values())
        self._image_threshold, self._pixel_threshold = image_threshold, pixel_threshold
        self._alarm_px = alarms_px
        self._pixels = _Decided(false=alarms_px, right=self._scored_px - alarms_px)

    def image_scores(self) -> dict[int, float]:
        """The score of each image: the highest of its pixels."""
        return {number: image.score for number, image in self._images.items()}

    def result(self) -> Metrics:
        """`image_auroc`, `pixel_auroc`, `pro` (over false-positive rates up to 0.3), the bounds of their
        rounding (`…_error`), `f1`, `false_alarms` (images) and `pixel_f1`, `pixel_false_alarms` at the
        thresholds, `anomalous_share` (of all pixels scored), `negative_loss` (minus the mean score of normal
        pixels) and how much of each there was.
        """
        self._finish_regions()
        known = [image for image in self._images.values() if image.anomalous is not None]
        scores = np.array([image.score for image in known], np.float64)
        anomalous = np.array([image.anomalous for image in known], np.bool_)
        metrics: Metrics = {"image_auroc": figure(float(auroc(Ranking(scores, anomalous).tally())))}
        areas = {
            "pixel_auroc": area_under_roc(self._normal.weights, self._anomalous.weights),
            "pro": area_under_pro(self._normal.weights, self._by_region),
        }
        for name, area in areas.items():
            metrics |= _figures(name, area)
        images = _Decided()
        if self._image_threshold is not None:
            images.see(scores > self._image_threshold, anomalous)
        decided = self._pixel_threshold is not None
        normal = self._normal.total
        return metrics | {
            "f1": images.f1(),
            "false_alarms": images.false_alarms(),
            "pixel_f1": self._pixels.f1(),
            "pixel_false_alarms": self._pixels.false_alarms(),
            "anomalous_share": self._alarm_px / self._scored_px if decided and self._scored_px else None,
            "negative_loss": -self._normal_sum / normal if normal else None,
            "images": float(len(self._images)),
            "anomalous_images": float(anomalous.sum()),
            "regions": float(self._regions),
        }

    def warnings(self) -> list[str]:
        """What of the figures is missing, and why."""
        known = [image.anomalous for image in self._images.values() if image.anomalous is not None]
        said = []
        if not known:
            said.append(
                _("Nobody said which images are anomalous, so nothing is judged: there is no AUROC or F1.")
            )
        if known and not any(known):
            said.append(_("No image that was scored is anomalous, so there is no AUROC, F1 or PRO."))
        if known and all(known):
            said.append(_("No image that was scored is normal, so there is no image AUROC."))
        if self._without_mask:
            said.append(
                _(
                    "{count} anomalous images have no mask: they count for the image AUROC, not for pixels."
                ).format(count=len(self._without_mask))
            )
        return said


def _figures(name: str, area: Area | None) -> Metrics:
    if area is None:
        return {name: None, f"{name}_error": None}
    return {name: area.value, f"{name}_error": area.error}
