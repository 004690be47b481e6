"""What a probe measures of a run over scenes: decoding, inference, scoring, and a batch for its steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from caudal.core.units import Bytes
from caudal.data.normalize import Normalization
from caudal.data.stream import Batch
from caudal.inference.forward import Forward as Infer
from caudal.memory.cost import Forward, line
from caudal.memory.meters import PeakMeter, charged_bytes
from caudal.models.fold import folded
from caudal.runs import assemble, forwards
from caudal.runs.pieces import Pieces
from caudal.runs.rehearsal import decoding_bytes, load_what_scenes_load, scoring_bytes
from caudal.runs.spec import RunSpec
from caudal.runs.tiling import validation_tiling
from caudal.runs.work.scene_input import prepare_scenes
from caudal.tasks.base import Task
from caudal.training.precision import Precision
from caudal.training.step import Parts, Prepare

OUTPUTS = 2  # classes are counted later; one more channel of the last layer is nothing


class SceneRehearsal:
    """See `Rehearsal`."""

    outputs = OUTPUTS
    parts: Parts | None = None
    steps = 2
    config: ClassVar[dict[str, Any]] = {}

    def __init__(self, spec: RunSpec, bands: int, dtype: str, patch_px: int, pieces: dict[str, Any]) -> None:
        self.inputs = bands
        self._spec, self._dtype, self.patch_px = spec, dtype, patch_px
        self._pieces = Pieces.model_validate(pieces)
        self._normalization = Normalization.plain(bands)
        self._forwards: tuple[Forward, ...] = ()

    def load(self) -> None:
        """See `Rehearsal.load`."""
        load_what_scenes_load()

    def make_task(self) -> Task:
        """See `Rehearsal.make_task`."""
        return assemble.make_map_task(self._spec, tuple(map(str, range(OUTPUTS))))

    def prepare(self, device: str) -> Prepare:
        """See `Rehearsal.prepare`."""
        return prepare_scenes(self._spec, self._normalization, device)

    def on_meta(self) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Rehearsal.on_meta`."""
        side = self.patch_px
        with torch.device("meta"):
            return torch.empty(1, self.inputs, side, side), torch.empty(1, side, side, dtype=torch.uint8)

    def decoding(self, meter: PeakMeter, threads: int) -> Bytes:
        """See `Rehearsal.decoding`."""
        return decoding_bytes(self._pieces, self._dtype, threads, meter)

    def forwards(self, model: nn.Module, task: Task, precision: Precision, room: Bytes) -> Sequence[Forward]:
        """See `Rehearsal.forwards`."""
        infer = self._infer(model, task, precision)
        on_device = precision.device == "cuda"
        self._forwards = forwards.of_tiles(infer, self.inputs, self._dtype, on_device, room)
        return self._forwards

    def scoring(self, model: nn.Module, task: Task, precision: Precision, meter: PeakMeter) -> Bytes:
        """See `Rehearsal.scoring`."""
        before = charged_bytes()
        infer = self._infer(model, task, precision)
        copied = max(0, charged_bytes() - before)
        tiling = validation_tiling(model, self._forwards)
        return Bytes(copied + scoring_bytes(self._pieces, infer, tiling, OUTPUTS, meter))

    def guess(self, forwards: Sequence[Forward], size: int) -> float:
        """See `Rehearsal.guess`: training keeps about three times what inference holds at once."""
        if not forwards:  # a device had no room for them
            return math.inf
        area_px = size * self.patch_px**2
        return 3 * line([(f.side_px**2, max(f.ram, f.vram)) for f in forwards], area_px)

    def batch(self, size: int, number: int) -> Batch:
        """See `Rehearsal.batch`."""
        draw = np.random.default_rng(0)
        side, dtype = self.patch_px, np.dtype(self._dtype)
        x_BHWC = draw.integers(0, 120, (size, side, side, self.inputs)).astype(dtype)
        y_BHW = draw.integers(0, OUTPUTS, (size, side, side)).astype(np.uint8)
        return Batch(x_BHWC, y_BHW, np.zeros(size, np.int64), np.arange(size), 0.0)

    def _infer(self, model: nn.Module, task: Task, precision: Precision) -> Infer:
        return Infer(
            folded(model), task.probabilities, self._normalization, 0, precision.device, precision.autocast
        )
