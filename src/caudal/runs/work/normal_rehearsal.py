"""What a probe measures of a run over normal images: reading, maps, and a batch for its steps."""

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
from caudal.memory.cost import Forward, line
from caudal.memory.meters import PeakMeter
from caudal.models.anomaly_map import Fitted, MapScores
from caudal.runs import forwards
from caudal.runs.pieces import Pieces
from caudal.runs.rehearsal import decoding_bytes, load_what_scenes_load, scoring_bytes
from caudal.runs.spec import RunSpec
from caudal.runs.tiling import validation_tiling
from caudal.runs.work.normal_input import forwards_of, prepare_normal
from caudal.tasks.anomaly.task import Anomaly
from caudal.tasks.base import Task
from caudal.training.precision import Precision
from caudal.training.step import Parts, Prepare


class NormalRehearsal:
    """See `Rehearsal`."""

    outputs = 1
    steps = 2
    parts: Parts | None = None
    config: ClassVar[dict[str, Any]] = {}

    def __init__(
        self, spec: RunSpec, bands: int, dtype: str, patch_px: int, pieces: dict[str, Any], labelled: bool
    ) -> None:
        self.inputs, self._labelled = bands, labelled
        self._spec, self._dtype, self.patch_px = spec, dtype, patch_px
        self._pieces = Pieces.model_validate(pieces)
        self._normalization = Normalization.plain(bands)
        self._forwards: tuple[Forward, ...] = ()

    def load(self) -> None:
        """See `Rehearsal.load`."""
        load_what_scenes_load()

    def make_task(self) -> Task:
        """See `Rehearsal.make_task`."""
        return Anomaly(self._labelled)

    def prepare(self, device: str) -> Prepare:
        """See `Rehearsal.prepare`."""
        return prepare_normal(self._spec, self._normalization, device)

    def on_meta(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """See `Rehearsal.on_meta`: some of these models are no chain of layers."""
        return None

    def decoding(self, meter: PeakMeter, threads: int) -> Bytes:
        """See `Rehearsal.decoding`."""
        return decoding_bytes(self._pieces, self._dtype, threads, meter)

    def forwards(self, model: nn.Module, task: Task, precision: Precision, room: Bytes) -> Sequence[Forward]:
        """See `Rehearsal.forwards`."""
        self._learn_a_little(model, precision.device)
        infer = forwards_of(model, task, self._normalization, precision)(0)
        on_device = precision.device == "cuda"
        self._forwards = forwards.of_tiles(infer, self.inputs, self._dtype, on_device, room)
        return self._forwards

    def scoring(self, model: nn.Module, task: Task, precision: Precision, meter: PeakMeter) -> Bytes:
        """See `Rehearsal.scoring`."""
        infer = forwards_of(model, task, self._normalization, precision)(0)
        tiling = validation_tiling(MapScores(model), self._forwards)
        return scoring_bytes(self._pieces, infer, tiling, 1, meter)

    def guess(self, forwards: Sequence[Forward], size: int) -> float:
        """See `Rehearsal.guess`."""
        if not forwards:  # a device had no room for them
            return math.inf
        area_px = size * self.patch_px**2
        return 3 * line([(f.side_px**2, max(f.ram, f.vram)) for f in forwards], area_px)

    def batch(self, size: int, number: int) -> Batch:
        """See `Rehearsal.batch`."""
        draw = np.random.default_rng(number)
        side, dtype = self.patch_px, np.dtype(self._dtype)
        x_BHWC = draw.integers(0, 120, (size, side, side, self.inputs)).astype(dtype)
        return Batch(
            x_BHWC, np.zeros((size, side, side), np.uint8), np.zeros(size, np.int64), np.arange(size), 0.0
        )

    def _learn_a_little(self, model: nn.Module, device: str) -> None:
        """A model that learns in one pass has no map before it: here of noise, with its memory full."""
        if not isinstance(model, Fitted):
            return
        from caudal.training.fit import Taker
        from caudal.training.step import equal_parts

        taker = Taker(model, self.prepare(device), equal_parts, 1)
        taker.run(self.batch(4, 0))
        model.finish()
