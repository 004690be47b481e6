"""Learning what is normal, the thresholds that follow from it, and scores of what may not be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from caudal.core.geometry import Window
from caudal.core.labels import IGNORE
from caudal.core.messages import _
from caudal.data.chunk_reader import ChunkReader, OpenFiles
from caudal.data.chunks import Cutter
from caudal.data.mvtec import Judged
from caudal.data.normalize import Normalization
from caudal.data.readers import reader_for
from caudal.data.stream import PatchStream
from caudal.data.url import Location
from caudal.inference.forward import Forward
from caudal.inference.scores import score_windows
from caudal.memory import allocator
from caudal.memory.arena import Arena
from caudal.models import weights
from caudal.models.anomaly_map import Fitted, MapScores
from caudal.runs import assemble
from caudal.runs.plan import TrainPlan
from caudal.runs.spec import RunSpec
from caudal.runs.tiling import Tiling, validation_tiling
from caudal.runs.work.normal_data import NormalData
from caudal.runs.work.normal_input import forwards_of, prepare_normal
from caudal.tasks.anomaly.task import Anomaly
from caudal.tasks.anomaly.threshold import ThresholdSketch
from caudal.tasks.base import Metrics
from caudal.training.fit import Taker
from caudal.training.precision import Precision
from caudal.training.step import Parts, Prepare, equal_parts

_MOST_VALIDATED = 16  # images


class NormalCourse:
    """See `Course`."""

    parts: Parts | None = None
    warnings: tuple[str, ...] = ()
    takes_ranks: bool = False

    def __init__(
        self,
        data: NormalData,
        cutter: Cutter,
        plan: TrainPlan,
        spec: RunSpec,
        normalization: Normalization,
    ) -> None:
        """`spec` is the plan's, with the model named that was left open there."""
        self._data, self._cutter, self._plan, self._spec = data, cutter, plan, spec
        self._normalization = normalization
        self._thresholds: dict[str, Any] = {}
        self.task = Anomaly()

    def make_model(self) -> nn.Module:
        """See `Course.make_model`."""
        return assemble.make_model(self._spec, self._data.index.bands, 1, self._plan.device)

    def prepare(self) -> Prepare:
        """See `Course.prepare`."""
        return prepare_normal(self._spec, self._normalization, self._plan.device)

    def fit(self, model: nn.Module) -> bool:
        """See `Course.fit`: one epoch."""
        if not isinstance(model, Fitted):
            return False
        taker = Taker(model, self.prepare(), equal_parts, self._plan.micro_batch)
        batches = max(1, self._cutter.samples // self._spec.training.batch)
        with self._stream(0, batches) as stream:
            for batch in stream:
                taker.run(batch)
        model.finish()
        return True

    @contextmanager
    def batches(self, start: int) -> Iterator[PatchStream]:
        """See `Course.batches`."""
        with self._stream(start, self._spec.training.steps) as stream:
            yield stream

    @contextmanager
    def _stream(self, start: int, stop: int) -> Iterator[PatchStream]:
        reader = ChunkReader(self._data.index, None, self._normalization.fill(), OpenFiles())
        with PatchStream(
            self._cutter,
            reader,
            Arena(self._plan.arena),
            batch=self._spec.training.batch,
            open_chunks=self._plan.point.open_blocks,
            ahead=self._plan.point.ahead,
            threads=self._spec.data.threads,
            start=start,
            stop=stop,
            overlap=self._plan.device != "cpu",
        ) as stream:
            yield stream

    def validate(self, model: nn.Module, precision: Precision) -> Metrics:
        """See `Course.validate`: on some held-out good images."""
        scorer = self.task.scorer()
        held_out = self._data.parts.held_out[:_MOST_VALIDATED]
        for number, i in enumerate(held_out):
            for _window, scores_HW in self._maps(model, precision, self._data.index.image(i)):
                scorer.add(number, scores_HW, None, False)
        return scorer.result()

    def score(self, model: nn.Module, precision: Precision, folder: Path) -> tuple[Metrics, Sequence[str]]:
        """See `Course.score`: thresholds from held-out good images, then figures on what was judged."""
        images, pixels = ThresholdSketch(), ThresholdSketch()
        judged, scorer = self._data.judged, self.task.scorer()
        for number, i in enumerate(self._data.parts.held_out):
            highest = -np.inf
            for _window, scores_HW in self._maps(model, precision, self._data.index.image(i), folder):
                there = scores_HW[np.isfinite(scores_HW)]
                if len(there):
                    pixels.add(there)
                    highest = max(highest, float(there.max()))
                if not judged:
                    scorer.add(number, scores_HW, None, False)
            if np.isfinite(highest):
                images.add(np.array([highest]))
        alarms, seed = self._spec.alarms, self._spec.seed
        of_images = images.threshold(alarms.images, alarms.method, seed)
        of_pixels = pixels.threshold(alarms.pixels, alarms.method, seed)
        self._thresholds = {"image": of_images.values(), "pixel": of_pixels.values()}
        said: list[str] = []
        labelled = any(one.anomalous for one in judged)
        self.task = Anomaly(labelled, of_images.score, of_pixels.score)
        if judged:
            scorer = self.task.scorer()
            said = score_judged(judged, scorer, lambda path: self._maps(model, precision, path, folder))
            if self._data.thrifty:
                said.append(
                    _(
                        "The good images that are scored are those that set the thresholds: false alarms and "
                        "F1 are better than those of new ones will be."
                    )
                )
        else:  # what set the thresholds is all there is, and is not mapped twice
            scorer.decide(of_images.score, of_pixels.score, pixels.above(of_pixels.score))
        remarks = [one.remark for one in (of_images, of_pixels) if one.remark]
        return scorer.result(), [*remarks, *said, *scorer.warnings()]

    def _maps(
        self, model: nn.Module, precision: Precision, path: Location, scratch: Path | None = None
    ) -> Iterator[tuple[Window, Any]]:
        forwards = forwards_of(model, self.task, self._normalization, precision)
        tiling = validation_tiling(MapScores(model), self._plan.probe.forwards)
        return maps_of(path, self._normalization, forwards, tiling, scratch)

    def card(self, model: nn.Module, metrics: Metrics) -> weights.ModelCard:
        """See `Course.card`."""
        return weights.ModelCard(
            task=self._spec.task,
            architecture=self._spec.model.name,
            config=model.config.model_dump(mode="json"),  # type: ignore[union-attr, operator]
            bands=self._data.index.bands,
            outputs=1,
            band_names=self._data.index.band_names,
            normalization=self._normalization.model_dump(mode="json"),
            threshold=self._thresholds or None,
            memory={
                "device": self._plan.device,
                "forwards": [f.model_dump(mode="json") for f in self._plan.probe.forwards],
            },
            metrics=metrics,
        )


def maps_of(
    path: Location,
    normalization: Normalization,
    forwards: Callable[[int], Forward],
    tiling: Tiling,
    scratch: Path | None = None,
) -> Iterator[tuple[Window, Any]]:
    """Windows of an image with their scores (H, W), NaN where a pixel is not valid; memory stays flat."""
    with reader_for(path).open(path) as source:
        forward = forwards(normalization.layout_for(source.header.band_names))
        grid = tiling.grid(source.header)
        regions = score_windows(source, forward, grid, 1, overlap=False, scratch=scratch)
        with closing(regions):
            for region in regions:
                if region.scores_CHW is None:
                    continue
                scores_HW = region.scores_CHW[0]
                if region.valid_HW is not None:
                    scores_HW = np.where(region.valid_HW, scores_HW, np.nan)
                yield region.window, scores_HW
        large = source.header.height * source.header.width >= 2**22
    if large:
        allocator.trim()


def score_judged(
    judged: Iterable[Judged], scorer: Any, maps: Callable[[Path], Iterator[tuple[Window, Any]]]
) -> list[str]:
    """Score images that somebody judged, with their masks where they have some; gives what must be said.

    A mask has the size of its image (`check_judged`) and is above 0, in any band, where something is wrong.
    """
    empty: list[Path] = []
    for number, one in enumerate(judged):
        if one.mask is None:
            for _window, scores_HW in maps(one.path):
                scorer.add(number, scores_HW, None, one.anomalous)
            continue
        marked = False
        with reader_for(one.mask).open(one.mask) as mask:
            for window, scores_HW in maps(one.path):
                read = mask.read(window)
                truth_HW = np.any(read.x_HWC > 0, axis=2).astype(np.uint8)
                if read.valid_HW is not None:
                    truth_HW[~read.valid_HW] = IGNORE
                marked = marked or bool((truth_HW == 1).any())
                scorer.add(number, scores_HW, truth_HW, one.anomalous, (window.row, window.col))
        if one.anomalous and not marked:
            empty.append(one.mask)
    if not empty:
        return []
    return [
        _(
            "{count} masks of anomalous images mark no pixel: all pixels there count as normal "
            "(first: {path})."
        ).format(count=len(empty), path=empty[0])
    ]
