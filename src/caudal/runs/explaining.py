"""How much of an explanation is done at once: as large a part of a scene, and as many copies of it, as fit.

What a map of a picture takes is measured on zeros, on squares that grow as long as the next should fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from caudal.core.messages import _
from caudal.core.units import MIB, Bytes
from caudal.inference.explain.methods import Effort, attribute, captum
from caudal.inference.explain.target import TargetScore, choose_target
from caudal.memory import allocator, planner
from caudal.memory.cost import line
from caudal.memory.meters import PeakMeter, charged_bytes
from caudal.runs.loaded import Loaded
from caudal.runs.seen import SIDES_PX, Eyes

_MOST = Effort().batch
_BESIDE = Bytes(48 * MIB)  # maps, curves and the page
# Where the heap keeps what is freed, more is held, and it takes 0.6 of the time.
_KEPT_TIMES, _KEPT_BESIDE = 1.5, Bytes(128 * MIB)

Shape = tuple[int, int, int]
"""Bands, rows, columns."""


@dataclass(frozen=True)
class AtOnce:
    """`copies` of a picture go through the model together, and of scenes a middle of `side_px`.

    The whole holds `needed` bytes at the most, if the heap gives back what is freed where it must.
    """

    copies: int
    side_px: int
    needed: Bytes
    gives_back: bool = False
    warnings: tuple[str, ...] = ()


def at_once(eyes: Eyes, shape: Shape, budget: Bytes) -> AtOnce:
    """As much as fits into `budget`, where `shape` is the largest picture.

    What a device holds is not measured. To be called where freed blocks are given back at once.

    Raises:
        DoesNotFit: not even one copy of the smallest does.
        UsageError: captum is not installed.
    """
    captum()  # what it brings along is held already when the rest is measured
    allocator.trim()
    held = charged_bytes()
    weights = sum(tensor.numel() * tensor.element_size() for tensor in eyes.model.state_dict().values())
    beside = Bytes(held + weights + _BESIDE)  # a check of the maps copies the weights
    if eyes.device != "cpu":
        planner.refuse_above(budget, beside)
        return AtOnce(_MOST, SIDES_PX[-1], beside)
    room = Bytes(max(0, budget - beside))
    bands, high, wide = shape
    shapes = [shape]
    if isinstance(eyes.source, Loaded):
        shapes = [(bands, side, side) for side in SIDES_PX if side < max(high, wide)] + shapes
    measured = _measured(eyes.model, shapes, room, held)
    largest, alone = next((one for one in reversed(measured) if one[1] <= room), measured[0])
    planner.refuse_above(budget, Bytes(beside + alone))
    counts = [(1.0, float(alone))]
    if 2 * alone <= room:
        counts.append((2.0, _taken(eyes.model, 2, largest, held)))
    ways = [
        (copies, gives_back, Bytes(beside + more + times * line(counts, copies)))
        for gives_back, times, more in ((False, _KEPT_TIMES, _KEPT_BESIDE), (True, 1.0, 0))
        for copies in range(_MOST, 0, -1)
    ]
    copies, gives_back, needed = next((way for way in ways if way[2] <= budget), ways[-1])
    if largest == shape:
        return AtOnce(copies, SIDES_PX[-1], needed, gives_back)
    said = _("Only the middle {side} px of scenes are explained: more does not fit into the budget.")
    return AtOnce(copies, largest[1], needed, gives_back, (said.format(side=largest[1]),))


def _measured(model: nn.Module, shapes: list[Shape], room: Bytes, held: int) -> list[tuple[Shape, int]]:
    """What a single copy takes of growing shapes, as long as the next should fit."""
    found: list[tuple[Shape, int]] = []
    for shape in shapes:
        areas = [(float(known[1] * known[2]), float(taken)) for known, taken in found]
        if areas and line(areas, shape[1] * shape[2]) > room:
            break
        found.append((shape, _taken(model, 1, shape, held)))
    return found


def _taken(model: nn.Module, copies: int, shape: Shape, held: int) -> int:
    """The peak above `held` of the method that takes most, with gradients in so many copies."""
    allocator.trim()
    meter = PeakMeter()
    x_CHW = torch.zeros(shape)
    score = TargetScore(model, choose_target(model, x_CHW))
    attribute("integrated_gradients", score, x_CHW, "", Effort(copies, steps=copies))
    return max(1, meter.peak() - held)
