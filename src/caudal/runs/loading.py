"""From a folder to a model that is ready: where its weights lie, and what inference takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from caudal.core.errors import DoesNotFit, UsageError
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.data.classes import Classes
from caudal.data.normalize import Normalization
from caudal.memory import allocator, planner, vram
from caudal.memory.cost import Forward as Measured
from caudal.memory.levers.weights import Weights
from caudal.memory.meters import charged_bytes, mind_files
from caudal.memory.plan import Pool
from caudal.models import weights
from caudal.models.anomaly_map import AnomalyMap, MapScores
from caudal.models.brought import brought
from caudal.models.fold import folded
from caudal.runs import forwards
from caudal.runs.loaded import Loaded
from caudal.runs.machine import processors, settle
from caudal.training.retry import ran_out

_COMFORT = 2  # times what its largest layer takes: less room than that is not tried in this process


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


def load_model(
    path: Path,
    device: str,
    ram: Bytes | None = None,
    on_card: Bytes | None = None,
    most_px: int | None = None,
) -> Loaded:
    """Load a run's or a model's folder, or a bare `.pt`; ready for speed where that fits into `ram`.

    On a device it may hold `on_card`, or a share of what is free there; that is made hard. Where what it
    takes must be measured, that is done up to squares of `most_px`: it is meant for no larger ones.

    Raises:
        BadModel: there is no model that may be opened.
        DeviceMissing: `device` is not here.
        DoesNotFit: not even a small tile fits beside the model, into `ram` or on the device.
        UsageError: the device has less than `on_card`.
    """
    model, card, where = _open(path, device)
    allowed = vram.allowed_on(where, on_card)
    position = _weights_position(model, card, allowed, ram)
    stored = card.memory or {}
    rows: tuple[Measured, ...] = ()
    held = Bytes(0)
    if position == Weights.HELD and stored.get("device") == where:
        rows = tuple(Measured.model_validate(row) for row in stored.get("forwards") or ())
    if not rows and ram is not None and allowed is None and _is_tight(model, position, ram):
        planner.refuse_above(ram, charged_bytes())  # less than what is held already: no child need try
        # Before any weight is copied here: the child that measures lies beside this process.
        asked = forwards.ask(path, where, position, ram, most_px)
        if not asked.found and position == Weights.HELD:
            position = Weights.MAPPED
            asked = forwards.ask(path, where, position, ram, most_px)
        if not asked.found:
            raise _no_layer_fits(model, ram)
        rows, held = asked.found, asked.held
    loaded = _ready(model, card, where, position, path)
    if allowed is not None:
        _settle_on_card(loaded, allowed)
    if not rows:
        mapped, on_device = position == Weights.MAPPED, allowed is not None
        room = None if ram is None or on_device else Bytes(ram - loaded.base)
        forward = loaded.forward(0)
        rows = tuple(forwards.measure(forward, card.bands, "uint8", mapped, room, on_device, most_px))
        if not rows:
            assert allowed is not None
            raise _no_layer_fits(model, allowed, "vram")
        held = Bytes(loaded.base + max(one.ram for one in rows))
    loaded.forwards, loaded.held_before = rows, held
    return loaded


def _settle_on_card(loaded: Loaded, budget: Bytes) -> None:
    """Bring a model's weights to where they will lie, and note what they take there.

    Raises:
        DoesNotFit: they take more than the budget.
    """
    loaded.vram = budget
    try:
        loaded.forward(0)
    except RuntimeError as error:
        if not ran_out(error):
            raise
        raise _no_layer_fits(loaded.model, budget, "vram") from None
    loaded.base_vram = vram.charged() or Bytes(0)


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
        if device == "cpu":
            allocator.give_back_at_once()  # room is short, and pages of weights come and go anyway
        else:
            ready = brought(ready, device)
    elif ready is model:
        ready = folded(model)
        mind_files()  # those of its weights, which nobody needs any more
    return Loaded(ready, card, normalization, classes, device, charged_bytes(), (), tuple(warnings), position)


def _weights_position(
    model: nn.Module, card: weights.ModelCard, allowed: Bytes | None, ram: Bytes | None
) -> int:
    """`HELD` if copies of the weights, made for speed, fit beside the smallest tile: into `allowed` of a
    device, or without one into `ram`."""
    stored = (card.memory or {}).get("forwards") or ()
    rows = tuple(Measured.model_validate(row) for row in stored)
    if allowed is not None:
        tile = min((row.vram for row in rows), default=0)
        return Weights.HELD if _bytes(model) + tile <= allowed else Weights.MAPPED
    tile = min((row.ram for row in rows), default=forwards.layer_bytes(model))
    fits = ram is None or charged_bytes() + _bytes(model) + tile <= ram
    return Weights.HELD if fits else Weights.MAPPED


def _is_tight(model: nn.Module, position: int, ram: Bytes) -> bool:
    """Whether `ram` may not hold a layer's work beside the model: then it is not tried in this process."""
    held = _bytes(model) if position == Weights.HELD else 0
    return charged_bytes() + held + _COMFORT * forwards.layer_bytes(model) > ram


def _bytes(model: nn.Module) -> int:
    return sum(w.numel() * w.element_size() for w in model.state_dict().values())


def _no_layer_fits(model: nn.Module, budget: Bytes, pool: Pool = "ram") -> DoesNotFit:
    """Tried, and ended by the kernel or the device: how much more it wants, nobody has seen."""
    layer = Bytes(forwards.layer_bytes(model))
    return DoesNotFit(
        _(
            "The budget of {budget} does not hold this model at work: its largest layer takes about {layer}."
        ).format(budget=budget, layer=layer),
        _("Give more with --{pool}, or use a smaller model.").format(pool=pool),
        pool=pool,
        needed=int(budget) + 1,
        budget=int(budget),
    )
