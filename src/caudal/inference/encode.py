"""Turns scores into the values of an output's pixels: a map of classes, or the scores themselves.

Shapes: C channels, H rows, W columns. Writes nothing; what the channels mean is told by whoever asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from caudal.core.errors import UsageError
from caudal.core.messages import _
from caudal.inference.blend import Scores
from caudal.inference.mosaic import Layout

Array = npt.NDArray[Any]
Valid = npt.NDArray[np.bool_]
MOST_CLASSES = 65535
SLAB_PX = 2**16  # pixels compared at once: what passes between two channels stays in the processor's cache


@dataclass(frozen=True, slots=True)
class Output:
    """What to write of a model's scores.

    `names` has one name for each channel. "classes" writes one band with the number of the highest channel,
    or, of a single channel, 1 where it is above `threshold` and 0 elsewhere; uint8, uint16 above 255 classes.
    "scores" writes a band for each channel: float32 as they are, or uint8 and uint16 with `low`..`high`
    spread over their range (values beyond are cut off). Nodata is the highest value of an integer dtype, NaN
    of float32.

    Raises:
        UsageError: no channel, too many classes, or an empty range.
    """

    names: tuple[str, ...]
    kind: Literal["classes", "scores"] = "classes"
    scores_dtype: Literal["uint8", "uint16", "float32"] = "uint8"
    low: float = 0.0
    high: float = 1.0
    threshold: float = 0.5
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < len(self.names) <= MOST_CLASSES or not self.high > self.low:
            raise UsageError(
                _("Scores of {count} channels from {low} to {high} cannot be written.").format(
                    count=len(self.names), low=self.low, high=self.high
                ),
                _("Name 1 to {most} channels, and let `high` be above `low`.").format(most=MOST_CLASSES),
            )

    @property
    def channels(self) -> int:
        """How many channels the scores have."""
        return len(self.names)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the pixels written."""
        if self.kind == "scores":
            return np.dtype(self.scores_dtype)
        return np.dtype(np.uint8 if self.channels <= 255 else np.uint16)

    @property
    def nodata(self) -> float:
        """The value of pixels without a prediction."""
        return float("nan") if self.dtype.kind == "f" else float(np.iinfo(self.dtype).max)

    @property
    def band_names(self) -> tuple[str, ...]:
        """One name for each band written."""
        return ("class",) if self.kind == "classes" else self.names

    @property
    def step(self) -> float:
        """How much of a score one step of an integer dtype stands for; 1 where scores are not scaled."""
        if self.kind == "classes" or self.dtype.kind == "f":
            return 1.0
        return (self.high - self.low) / (self.nodata - 1)

    def layout(self, height: int, width: int) -> Layout:
        """The bands of the file to write."""
        scaled = self.kind == "scores" and self.dtype.kind != "f"
        tags = dict(self.tags)
        if self.kind == "classes":
            tags["CLASSES"] = "|".join(self.names)
        overview: Literal["mode", "average"] = "mode" if self.kind == "classes" else "average"
        return Layout(
            height,
            width,
            self.dtype,
            self.band_names,
            self.nodata,
            overview,
            scale=self.step if scaled else 1.0,
            offset=self.low if scaled else 0.0,
            tags=tags,
        )

    def encode(self, scores_CHW: Scores, valid_HW: Valid | None) -> Array:
        """The values to write, with the shape (bands, H, W); nodata where `valid_HW` is false.

        `scores_CHW` may be written into; what comes back is no view of it.
        """
        if self.kind == "classes":
            values = self._classes(scores_CHW)[None]
        elif self.dtype.kind == "f":
            values = scores_CHW.copy()
        else:
            values = self._scaled(scores_CHW)
        if valid_HW is not None:
            np.copyto(values, self.dtype.type(self.nodata), where=~valid_HW)
        return values

    def empty(self, height: int, width: int) -> Array:
        """What to write where nothing was predicted."""
        return np.full((len(self.band_names), height, width), self.nodata, self.dtype)

    def predicted_px(self, values_BHW: Array) -> int:
        """How many pixels of what `encode` gave are not nodata."""
        first_HW = values_BHW[0]
        missing = np.isnan(first_HW) if self.dtype.kind == "f" else first_HW == self.dtype.type(self.nodata)
        return int(first_HW.size) - int(np.count_nonzero(missing))

    def _classes(self, scores_CHW: Scores) -> Array:
        """`argmax` over channels; the first of equals wins, as in numpy's, which is slower on planes."""
        _, height, width = scores_CHW.shape
        class_HW = np.empty((height, width), self.dtype)
        if self.channels == 1:
            np.greater(scores_CHW[0], self.threshold, out=class_HW, casting="unsafe")
            return class_HW
        rows = max(1, SLAB_PX // width)
        for row in range(0, height, rows):
            _argmax(scores_CHW[:, row : row + rows], class_HW[row : row + rows])
        return class_HW

    def _scaled(self, scores_CHW: Scores) -> Array:
        scores_CHW -= np.float32(self.low)
        scores_CHW *= np.float32(1 / self.step)
        np.clip(scores_CHW, 0, self.nodata - 1, out=scores_CHW)
        np.rint(scores_CHW, out=scores_CHW)
        return scores_CHW.astype(self.dtype)


def _argmax(scores_CHW: Scores, class_HW: Array) -> None:
    """The highest of two or more channels of each pixel, into `class_HW`.

    Classes only rise on the way through the channels, so the highest number wins. Multiplying and comparing
    every pixel is up to ten times as fast as assigning to some of them.
    """
    better_HW = np.greater(scores_CHW[1], scores_CHW[0])
    class_HW[...] = better_HW
    if len(scores_CHW) == 2:
        return
    best_HW, class_or_0_HW = np.maximum(scores_CHW[0], scores_CHW[1]), np.empty_like(class_HW)
    for number in range(2, len(scores_CHW)):
        np.greater(scores_CHW[number], best_HW, out=better_HW)
        np.multiply(better_HW.view(np.uint8), class_HW.dtype.type(number), out=class_or_0_HW)
        np.maximum(class_HW, class_or_0_HW, out=class_HW)
        np.maximum(best_HW, scores_CHW[number], out=best_HW)
