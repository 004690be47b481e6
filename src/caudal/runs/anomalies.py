"""Scores of a trained anomaly model: on images that somebody judged, and as a table of what was mapped."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from caudal.core.errors import BadModel
from caudal.core.files import write_whole
from caudal.core.geometry import Window
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.data.judged_headers import check_judged
from caudal.data.mvtec import Judged
from caudal.data.readers import reader_for
from caudal.runs.loaded import Loaded
from caudal.runs.telling import Telling
from caudal.runs.work.normal_course import maps_of, score_judged
from caudal.tasks.anomaly.task import Anomaly

_BAND_ROWS = 512


@dataclass(frozen=True)
class Thresholds:
    """Scores above which an image, or a pixel, is an alarm."""

    image: float
    pixel: float

    @classmethod
    def of(cls, loaded: Loaded, path: object) -> Thresholds:
        """Those that a model's card holds.

        Raises:
            BadModel: it holds none: its training did not come to its end.
        """
        stored = loaded.card.threshold
        if stored is None:
            raise BadModel(
                _("{path} has no threshold: its training did not come to its end.").format(path=path),
                _("Run `caudal train` again with the same folder."),
            )
        return cls(float(stored["image"]["score"]), float(stored["pixel"]["score"]))


def score_all(
    loaded: Loaded, judged: Sequence[Judged], thresholds: Thresholds, budget: Bytes, told: Telling
) -> tuple[Any, Bytes, list[str]]:
    """A scorer that saw every image, the peak that was predicted, and what must be said of the images.

    Raises:
        DoesNotFit: not even the smallest tile fits.
        DataError: an image has other bands.
        BadPair: a mask has another size than its image.
    """
    said = check_judged(judged, loaded.card.bands)
    scorer = Anomaly(True, thresholds.image, thresholds.pixel).scorer()
    paths = [one.path for one in judged]
    cut, predicted, tiles = loaded.cut(paths, budget, False, told.scanned)
    card = (loaded.vram, loaded.predicted_vram)
    told.started(loaded.card.task, loaded.device, tiles, budget, predicted, card)
    tilings, done = dict(zip(paths, cut, strict=True)), 0

    def maps(path: Path) -> Any:
        nonlocal done
        for window, scores_HW in maps_of(path, loaded.normalization, loaded.forward, tilings[path]):
            yield window, scores_HW
            done += 1
            told.tile(done, tiles)

    said += score_judged(judged, scorer, maps)
    return scorer, predicted, said


def write_table(out: Path, maps: Sequence[tuple[str, Path]], thresholds: Thresholds) -> int:
    """Write a row for each image from the map that was written of it; gives the number of alarms.

    Columns: file, its score (of its oddest pixel), whether that is an alarm, and the share of odd pixels.
    """
    rows = [(name, *_figures(path, thresholds)) for name, path in maps]

    def write(part: Path) -> None:
        with part.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["file", "score", "anomalous", "anomalous_share"])
            for name, score, share in rows:
                table.writerow([name, f"{score:.6g}", int(score > thresholds.image), f"{share:.6g}"])

    write_whole(out, write)
    return sum(score > thresholds.image for _name, score, _share in rows)


def _figures(path: Path, thresholds: Thresholds) -> tuple[float, float]:
    """The highest score of a map, and the share of its pixels above the threshold."""
    highest, odd, there = -np.inf, 0, 0
    with reader_for(path).open(path) as source:
        header = source.header
        for row in range(0, header.height, _BAND_ROWS):
            window = Window(row, 0, _BAND_ROWS, header.width).clip(header.height, header.width)
            scores = source.read(window).x_HWC[:, :, 0]
            known = scores[np.isfinite(scores)]
            if len(known):
                highest = max(highest, float(known.max()))
                odd += int((known > thresholds.pixel).sum())
                there += len(known)
    return highest if there else float("nan"), odd / there if there else 0.0
