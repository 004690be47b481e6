"""A trained model, ready for use: weights, normalization, classes, and how large its tiles may be."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import nn

from caudal.core.errors import DataError, DoesNotFit, UsageError
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
from caudal.memory.meters import charged_bytes
from caudal.memory.plan import Holder
from caudal.memory.vram import DEFAULT_SHARE
from caudal.models import weights
from caudal.models.anomaly_map import AnomalyMap, MapScores
from caudal.models.brought import brought
from caudal.models.fold import folded
from caudal.runs import assemble, forwards
from caudal.runs.inference_margin import InferenceMargin
from caudal.runs.machine import processors, settle
from caudal.runs.tiling import Tiling, candidates, tiling_bytes
from caudal.training import precision

_COMFORT = 2  # times what its largest layer takes: less room than that is not tried in this process


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

    @cached_property
    def margin(self) -> InferenceMargin:
        """What predictions with a model like this have taught."""
        return InferenceMargin.of(self.card, self.device, self.weights)

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

    def _rehearsed(self, tiling: Tiling, header: Header) -> Bytes:
        """The same from one real tile: what lies free in the heap by then is taken again, or is not."""
        height, width = tiling.grid(header).largest
        key = (height, width, header.bands, str(header.dtype))
        if key not in self.tiles:
            x_NHWC = np.zeros((1, height, width, header.bands), header.dtype)
            self.tiles[key] = forwards.peak_of(self.forward(0), x_NHWC, self.weights == Weights.MAPPED)
        own = working_bytes(
            tiling.grid(header), header.bands, header.dtype.itemsize, self.card.outputs, 1,
            threads=processors(), overlap=self.device != "cpu", block_px=header.block[0],
        )  # fmt: skip
        return self.margin.beyond(self.tiles[key] + own + _scratch(tiling, header))

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
        DoesNotFit: not even a small tile fits into `ram` beside the model.
    """
    model, card, where = _open(path, device)
    position = _weights_position(model, card, where, ram)
    stored = card.memory or {}
    rows: tuple[Measured, ...] = ()
    if position == Weights.HELD and stored.get("device") == where:
        rows = tuple(Measured.model_validate(row) for row in stored.get("forwards") or ())
    if not rows and ram is not None and _is_tight(model, position, ram):
        planner.refuse_above(ram, charged_bytes())  # less than what is held already: no child need try
        # Before any weight is copied here: the child that measures lies beside this process.
        rows = forwards.ask(path, where, position, ram)
        if not rows and position == Weights.HELD:
            position = Weights.MAPPED
            rows = forwards.ask(path, where, position, ram)
        if not rows:
            raise _no_layer_fits(model, ram)
    loaded = _ready(model, card, where, position, path)
    if not rows:
        mapped = position == Weights.MAPPED
        rows = tuple(forwards.measure(loaded.forward(0), card.bands, mapped, None))
    loaded.forwards = rows
    return loaded


def open_model(path: Path, device: str, position: int) -> Loaded:
    """A model with its weights at `position` of their lever; what inference takes is not measured.

    Raises:
        BadModel: there is no model that may be opened.
        DeviceMissing: `device` is not here.
    """
    model, card, where = _open(path, device)
    return _ready(model, card, where, position, path)


def _open(path: Path, device: str) -> tuple[nn.Module, weights.ModelCard, str]:
    """The model, its weights mapped as they lie, its card, and the device that is to be used."""
    settle()
    torch.set_num_threads(processors())
    where = vram.choose(device)
    model, card = weights.load(path / "model" if (path / "model").is_dir() else path)
    return model.requires_grad_(False), card, where


def _ready(model: nn.Module, card: weights.ModelCard, device: str, position: int, path: Path) -> Loaded:
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
        ready = ready if device == "cpu" else brought(ready, device)
    elif ready is model:
        ready = folded(model)
    return Loaded(ready, card, normalization, classes, device, charged_bytes(), (), tuple(warnings), position)


def _weights_position(model: nn.Module, card: weights.ModelCard, device: str, ram: Bytes | None) -> int:
    """`HELD` if copies of the weights, made for speed, fit into `ram` beside the smallest tile."""
    stored = (card.memory or {}).get("forwards") or ()
    rows = tuple(Measured.model_validate(row) for row in stored)
    if device == "cuda":
        tile = min((row.vram for row in rows), default=0)
        return (
            Weights.HELD if _bytes(model) + tile <= DEFAULT_SHARE * vram.devices()[0].free else Weights.MAPPED
        )
    tile = min((row.ram for row in rows), default=forwards.layer_bytes(model))
    fits = ram is None or charged_bytes() + _bytes(model) + tile <= ram
    return Weights.HELD if fits else Weights.MAPPED


def _is_tight(model: nn.Module, position: int, ram: Bytes) -> bool:
    """Whether `ram` may not hold a layer's work beside the model: then it is not tried in this process."""
    held = _bytes(model) if position == Weights.HELD else 0
    return charged_bytes() + held + _COMFORT * forwards.layer_bytes(model) > ram


def _bytes(model: nn.Module) -> int:
    return sum(w.numel() * w.element_size() for w in model.state_dict().values())


def _no_layer_fits(model: nn.Module, ram: Bytes) -> DoesNotFit:
    """Tried, and ended by the kernel: how much more it wants, nobody has seen."""
    layer = Bytes(forwards.layer_bytes(model))
    return DoesNotFit(
        _(
            "The budget of {budget} does not hold this model at work: its largest layer takes about {layer}."
        ).format(budget=ram, layer=layer),
        _("Give more with --ram, or use a smaller model."),
        pool="ram",
        needed=int(ram) + 1,
        budget=int(ram),
    )
