"""A trained model, ready for use: weights, normalization, classes, and how large its tiles may be."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from caudal.core.errors import DataError, UsageError
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.data.classes import Classes
from caudal.data.normalize import Normalization
from caudal.data.readers import reader_for
from caudal.data.readers.base import Header
from caudal.data.url import Location
from caudal.inference.forward import Forward
from caudal.inference.predict import working_bytes
from caudal.memory import planner, vram
from caudal.memory.cost import Forward as Measured
from caudal.memory.levers.weights import Weights
from caudal.memory.meters import PeakMeter, charged_bytes
from caudal.memory.plan import Holder
from caudal.memory.vram import DEFAULT_SHARE
from caudal.models import weights
from caudal.models.anomaly_map import AnomalyMap, MapScores
from caudal.models.brought import brought
from caudal.models.fold import folded
from caudal.runs import assemble
from caudal.runs.machine import processors, settle
from caudal.runs.tiling import Tiling, candidates, tiling_bytes
from caudal.training import precision

_MEASURED_SIDES_PX = (256, 576)


@dataclass
class Loaded:
    """A model for inference on `device`; `base` is what the process held once it was loaded.

    `weights` is the position of that lever.
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
    tiles: dict[tuple[int, int, int, str], Bytes] = field(default_factory=dict)
    """What this process held while it inferred one, by height, width, bands and dtype."""

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
            DoesNotFit: not even the smallest tile fits.
        """
        header = reader_for(path).header(path)
        multiple, reach = int(self.model.multiple_px), int(self.model.receptive_field_px)  # type: ignore[arg-type]
        rows = candidates(reach, multiple, exact)
        for tiling in rows:
            if self._needed(tiling, header) <= budget and (real := self._rehearsed(tiling, header)) <= budget:
                return tiling, real
        raise planner.refusal(self._holders(rows[-1], header), budget, None)

    def _rehearsed(self, tiling: Tiling, header: Header) -> Bytes:
        """The same from one real tile: what lies free in the heap by then is taken again, or is not."""
        height, width = tiling.grid(header).largest
        key = (height, width, header.bands, str(header.dtype))
        if key not in self.tiles:
            meter = PeakMeter()
            self.forward(0)(np.zeros((1, height, width, header.bands), header.dtype), None)
            self.tiles[key] = meter.peak()
        own = working_bytes(
            tiling.grid(header), header.bands, header.dtype.itemsize, self.card.outputs, 1,
            threads=processors(), overlap=self.device != "cpu", block_px=header.block[0],
        )  # fmt: skip
        return Bytes(self.tiles[key] + own + _scratch(tiling, header))

    def _holders(self, tiling: Tiling, header: Header) -> list[Holder]:
        ram, _vram = tiling_bytes(tiling, self.forwards, header, self.card.outputs)
        scratch = _scratch(tiling, header)
        return [
            Holder(name=_("interpreter, libraries, model"), bytes=self.base, exact=False),
            Holder(name=_("tiles of {side} px").format(side=tiling.side_px), bytes=ram, exact=False),
            Holder(name=_("decoding"), bytes=scratch, exact=False),
        ]

    def _needed(self, tiling: Tiling, header: Header) -> Bytes:
        return planner.total(self._holders(tiling, header), "ram")


def _scratch(tiling: Tiling, header: Header) -> Bytes:
    """Blocks that decoding one tile's part holds beside it."""
    block_px = header.block[0] * header.block[1]
    return Bytes(2 * min(block_px, header.height * header.width) * header.pixel_bytes)


def is_of_samples(path: Path) -> bool:
    """Whether a run's or a model's folder holds a model of samples, not of scenes."""
    folder = path / "model" if (path / "model").is_dir() else path
    try:
        card = json.loads((folder / weights.CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False  # a bare file, or one that loading says more of
    return isinstance(card, dict) and card.get("inputs") is not None


def one_folder(data: str | Path | Sequence[str | Path]) -> str:
    """The one folder or file of samples that was named.

    Raises:
        UsageError: there are several.
    """
    given = [data] if isinstance(data, str | Path) else list(data)
    if len(given) != 1:
        raise UsageError(
            _("Samples are taken from one folder, file or pack, and {count} were given.").format(
                count=len(given)
            ),
            _("Name one; it may hold many files."),
        )
    return str(given[0])


def load_model(path: Path, device: str, ram: Bytes | None = None) -> Loaded:
    """Load a run's or a model's folder, or a bare `.pt`; ready for speed where that fits into `ram`.

    Raises:
        BadModel: there is no model that may be opened.
        DeviceMissing: `device` is not here.
    """
    settle()
    torch.set_num_threads(processors())
    where = vram.choose(device)
    model, card = weights.load(path / "model" if (path / "model").is_dir() else path)
    model.requires_grad_(False)
    position = _weights_position(model, card, where, ram)
    warnings = []
    if card.normalization is None:
        warnings.append(
            _("{path} says nothing of normalization: values are used as they are.").format(path=path)
        )
        normalization = Normalization.plain(card.bands)
    else:
        normalization = Normalization.model_validate(card.normalization)
    classes = Classes.model_validate(card.classes) if card.classes else None
    ready = MapScores(model) if isinstance(model, AnomalyMap) else model
    if position == Weights.MAPPED:
        ready = ready if where == "cpu" else brought(ready, where)
    elif ready is model:
        ready = folded(model)
    loaded = Loaded(
        ready, card, normalization, classes, where, charged_bytes(), (), tuple(warnings), position
    )
    stored = card.memory or {}
    if position == Weights.HELD and stored.get("device") == where and stored.get("forwards"):
        loaded.forwards = tuple(Measured.model_validate(row) for row in stored["forwards"])
    else:
        loaded.forwards = _measure(loaded)
    return loaded


def _weights_position(model: nn.Module, card: weights.ModelCard, device: str, ram: Bytes | None) -> int:
    """`HELD` if copies of the weights, made for speed, fit into `ram` beside the smallest tile."""
    stored = (card.memory or {}).get("forwards") or ()
    forwards = tuple(Measured.model_validate(row) for row in stored)
    tile = min((row.vram if device == "cuda" else row.ram for row in forwards), default=0)
    copies = sum(w.numel() * w.element_size() for w in model.state_dict().values())
    if device == "cuda":
        free = vram.devices()[0].free
        return Weights.HELD if copies + tile <= DEFAULT_SHARE * free else Weights.MAPPED
    return Weights.HELD if ram is None or charged_bytes() + copies + tile <= ram else Weights.MAPPED


def _measure(loaded: Loaded) -> tuple[Measured, ...]:
    """Two small real inferences, for a model that was not measured on this kind of device."""
    forward, meter, ready, found = loaded.forward(0), PeakMeter(), charged_bytes(), []
    for side in _MEASURED_SIDES_PX:
        x_NHWC = np.zeros((1, side, side, loaded.card.bands), np.uint8)
        meter.reset()
        began = time.perf_counter()
        forward(x_NHWC, None)
        seconds = time.perf_counter() - began
        ram = Bytes(max(1, meter.peak() - ready))
        found.append(Measured(side_px=side, ram=ram, vram=Bytes(vram.peak() or 0), seconds=seconds))
    return tuple(found)
