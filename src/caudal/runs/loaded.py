"""A trained model, ready for use: weights, normalization, classes, and how large its tiles may be."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from caudal.core.errors import CaudalError, DataError
from caudal.core.geometry import Window
from caudal.core.messages import _
from caudal.core.units import MIB, Bytes
from caudal.data.classes import Classes
from caudal.data.normalize import Normalization
from caudal.data.readers import reader_for
from caudal.data.readers.base import Header
from caudal.data.url import Location
from caudal.inference.forward import Forward
from caudal.inference.predict import working_bytes
from caudal.memory import allocator, cost, margin, planner, vram
from caudal.memory.cost import Forward as Measured
from caudal.memory.levers.weights import Weights
from caudal.memory.plan import Holder
from caudal.models import weights
from caudal.runs import assemble, forwards
from caudal.runs.inference_margin import InferenceMargin
from caudal.runs.machine import processors
from caudal.runs.tiling import Tiling, candidates
from caudal.training import precision
from caudal.training.retry import ran_out

_TRIES, _AT_LEAST, _QUICK_SECONDS, _MOST_SECONDS = 6, 3, 0.5, 3.0  # of a tile
_FIRST = 0.03  # margin: beside a tile lie blocks of many sizes, and one block when it is tried
_PIXEL, _LITTLE = Window(0, 0, 1, 1), 2 * MIB  # of a file, and what may be decoded for it


@dataclass(frozen=True, slots=True)
class Written:
    """What becomes of scores: bytes of a pixel in the output, and whether flips and turns are averaged."""

    pixel_bytes: int = 1
    average_d4: bool = False


@dataclass
class Loaded:
    """A model for inference on `device`; `base` is what the process held once it was loaded.

    `weights` is the position of that lever. `held_before` is the most that was held while it was measured, by
    this process and a child. `vram` is the budget of the device (`None` without one),
    `base_vram` what the model holds there, `predicted_vram` the peak there with the tiles chosen so far.
    """

    model: nn.Module
    card: weights.ModelCard
    normalization: Normalization
    classes: Classes | None
    device: str
    base: Bytes
    forwards: tuple[Measured, ...]
    warnings: tuple[str, ...]
    weights: int = Weights.HELD
    written: Written = field(default_factory=Written)
    vram: Bytes | None = None
    held_before: Bytes = field(default_factory=Bytes)
    base_vram: Bytes = field(default_factory=Bytes)
    predicted_vram: Bytes = field(default_factory=Bytes)
    tiles: dict[tuple[int, int, int, str], tuple[Bytes, Bytes, int] | None] = field(default_factory=dict)
    """What this process held while it inferred one, and what the device; by height, width, bands and dtype.
    The third are bytes that lay beside it, as what reads and writes holds. `None`: the device had no room."""

    def forward(self, layout: int) -> Forward:
        """The model as a function of a file's values, for files of that layout."""
        number = precision.choose(self.device, "auto")
        return Forward(
            self.model,
            assemble.probabilities_of(self.card),
            self.normalization,
            layout,
            self.device,
            number.autocast,
            as_they_lie=self.weights == Weights.MAPPED,
        )

    @cached_property
    def margin(self) -> InferenceMargin:
        """What predictions with a model like this have taught."""
        return InferenceMargin.of(self.card, self.device, self.weights, _FIRST)

    def check_bands(self, bands: int, path: object) -> None:
        """Refuse data with another number of bands.

        Raises:
            DataError: the counts differ.
        """
        if bands != self.card.bands:
            raise DataError(
                _("{path} has {found} bands and the model was trained on {wanted}.").format(
                    path=path, found=bands, wanted=self.card.bands
                ),
                _("Use images with the same bands."),
                path=str(path),
            )

    def tiling(self, budget: Bytes, path: Location, exact: bool = False) -> tuple[Tiling, Bytes]:
        """The best tiles for a raster that fit, and the peak of the whole process with them.

        Raises:
            DoesNotFit: not even the smallest tile fits, into `budget` or into the device's.
        """
        header = reader_for(path).header(path)
        if not self.tiles:
            _read_once(path)
        multiple, reach = int(self.model.multiple_px), int(self.model.receptive_field_px)  # type: ignore[arg-type]
        rows = candidates(reach, multiple, exact)
        most: tuple[Bytes, Bytes] | None = None
        for tiling in rows:
            if planner.fits(self._holders(tiling, header), budget, self.vram):
                most = self._rehearsed(tiling, header)
                if most and most[0] <= budget and (self.vram is None or most[1] <= self.vram):
                    self.predicted_vram = max(self.predicted_vram, most[1])
                    return tiling, max(most[0], self.held_before)
        least = self._holders(rows[-1], header)
        if planner.fits(least, budget, self.vram):
            # It was tried, and a tile takes more than tiles of other sizes said.
            planner.refuse_above(budget, most[0] if most else Bytes(0))
            if self.vram is not None:
                planner.refuse_above(self.vram, most[1] if most else Bytes(self.vram + 1), "vram")
        raise planner.refusal(least, budget, self.vram)

    def cut(
        self, paths: Sequence[Location], budget: Bytes, exact: bool, tick: Callable[[int, int], None]
    ) -> tuple[list[Tiling], Bytes, int]:
        """The tiles of each raster, the predicted peak of all, and how many tiles they are together.

        `tick` hears how many were looked at.

        Raises:
            DataError: one cannot be read, or has other bands.
            DoesNotFit: not even the smallest tile fits.
        """
        rows: list[Tiling] = []
        known: dict[Tiling, Tiling] = {}  # of very many rasters, most are cut alike
        predicted, tiles = Bytes(0), 0
        for number, path in enumerate(paths):
            header = reader_for(path).header(path)
            self.check_bands(header.bands, path)
            tiling, needed = self.tiling(budget, path, exact)
            rows.append(known.setdefault(tiling, tiling))
            predicted = max(predicted, needed)
            tiles += tiling.tiles(header.height, header.width)
            tick(number + 1, len(paths))
        return rows, predicted, tiles

    def _rehearsed(self, tiling: Tiling, header: Header) -> tuple[Bytes, Bytes] | None:
        """The same from one real tile: what lies free in the heap by then is taken again, or is not.

        On the host and on the device; `None` where the device has no room for it.
        """
        height, width = tiling.grid(header).largest
        own = _scratch(tiling, header) + self._working(tiling, header)
        key = (height, width, header.bands, str(header.dtype))
        if key not in self.tiles:
            x_NHWC = np.zeros((1, height, width, header.bands), header.dtype)
            self.tiles[key] = self._tried(x_NHWC, own)
        if (tried := self.tiles[key]) is None:
            return None
        ram, on_card, with_own = tried
        return self.margin.beyond(ram + max(0, own - with_own)), Bytes(on_card * (1 + margin.FIRST))

    def _tried(self, x_NHWC: npt.NDArray[Any], own: int) -> tuple[Bytes, Bytes, int] | None:
        forward, mapped = self.forward(0), self.weights == Weights.MAPPED
        vram.trim()
        vram.reset_peak()
        ram, began = Bytes(0), time.monotonic()
        try:
            with allocator.apart():
                ram = forwards.peak_of(forward, x_NHWC, mapped)
            allocator.trim()
            beside = np.ones(max(0, own - x_NHWC.nbytes), np.uint8)  # as a run has it by then
            for turn in range(1, _TRIES + 1):  # the heap grows for some
                ram = max(ram, forwards.peak_of(forward, x_NHWC, mapped))
                seconds = time.monotonic() - began
                if seconds > _MOST_SECONDS or (seconds > _QUICK_SECONDS and turn >= _AT_LEAST):
                    break
        except RuntimeError as error:
            if self.vram is None or not ran_out(error):
                raise
            return None
        del beside
        on_card = (vram.peak_since_reset() or Bytes(0)) if self.vram is not None else Bytes(0)
        return ram, on_card, own

    def _holders(self, tiling: Tiling, header: Header) -> list[Holder]:
        height, width = tiling.grid(header).largest
        ram, on_card = cost.forward_bytes(self.forwards, height * width)
        scratch, tiles = _scratch(tiling, header), _("tiles of {side} px").format(side=tiling.side_px)
        there = [
            Holder(name=_("weights"), bytes=self.base_vram, pool="vram"),
            Holder(name=tiles, bytes=on_card, pool="vram", exact=False),
        ]
        return [
            *(there if self.vram is not None else ()),
            Holder(name=_("interpreter, libraries, model"), bytes=self.base, exact=False),
            Holder(name=tiles, bytes=Bytes(ram + self._working(tiling, header)), exact=False),
            Holder(name=_("decoding"), bytes=scratch, exact=False),
        ]

    def _working(self, tiling: Tiling, header: Header) -> int:
        """What reading, joining and writing hold beside the model."""
        return working_bytes(
            tiling.grid(header), header.bands, header.dtype.itemsize, self.card.outputs, 1,
            out_bytes=self.written.pixel_bytes, average_d4=self.written.average_d4,
            threads=processors(), overlap=self.device != "cpu", block_px=header.block[0],
        )  # fmt: skip


def _read_once(path: Location) -> None:
    """Read a pixel where that takes little: what the decoder loads is held in each phase that follows."""
    with suppress(CaudalError), reader_for(path).open(path) as source:
        if source.scratch_bytes(_PIXEL) <= _LITTLE:
            source.read(_PIXEL)


def _scratch(tiling: Tiling, header: Header) -> Bytes:
    """Blocks that decoding one tile's part holds beside it."""
    block_px = header.block[0] * header.block[1]
    return Bytes(2 * min(block_px, header.height * header.width) * header.pixel_bytes)
