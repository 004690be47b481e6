"""How much of an explanation is done at once: as large a part of a scene, and as many copies of it, as fit.

What a picture takes with its gradients is measured on zeros, on squares that grow as long as the next should
fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from caudal.core.messages import _
from caudal.core.units import MIB, Bytes
from caudal.inference.explain.methods import Effort, captum
from caudal.inference.explain.target import scores_of
from caudal.memory import allocator, planner
from caudal.memory.cost import line
from caudal.memory.meters import PeakMeter, charged_bytes
from caudal.runs.loaded import Loaded
from caudal.runs.seen import SIDES_PX, Eyes

_MOST = Effort().batch
_BESIDE = Bytes(48 * MIB)  # maps, curves and the page

Shape = tuple[int, int, int]
"""Bands, rows, columns."""


@dataclass(frozen=True)
class AtOnce:
    """`copies` of a picture go through the model together, and of scenes a middle of `side_px`.

    The whole holds `needed` bytes at the most.
    """

    copies: int
    side_px: int
    needed: Bytes
    warnings: tuple[str, ...] = ()


def at_once(eyes: Eyes, shape: Shape, budget: Bytes) -> AtOnce:
    """As much as fits into `budget`, where `shape` is the largest picture.

    What a device holds is not measured.

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
    room = budget - beside
    bands, *sides = shape
    shapes = [shape]
    if isinstance(eyes.source, Loaded):
        shapes = [(bands, side, side) for side in SIDES_PX if side < max(sides)] + shapes
    alone: list[tuple[float, float]] = []
    for _bands, high, wide in shapes:
        if alone and line(alone, high * wide) > room:
            break
        alone.append((high * wide, _with_gradients(eyes.model, 1, (bands, high, wide), held)))
    fitting = [shape for shape, (_area, taken) in zip(shapes, alone, strict=False) if taken <= room]
    if not fitting:
        planner.refuse_above(budget, Bytes(beside + alone[0][1]))
    largest = fitting[-1]
    counts = [(1.0, alone[len(fitting) - 1][1])]
    if 2 * counts[0][1] <= room:
        counts.append((2.0, _with_gradients(eyes.model, 2, largest, held)))
    copies = max(n for n in range(1, _MOST + 1) if n == 1 or line(counts, n) <= room)
    needed = Bytes(beside + line(counts, copies))
    if largest == shape:
        return AtOnce(copies, SIDES_PX[-1], needed)
    said = _("Only the middle {side} px of scenes are explained: more does not fit into the budget.")
    return AtOnce(copies, largest[1], needed, (said.format(side=largest[1]),))


def _with_gradients(model: nn.Module, copies: int, shape: Shape, held: int) -> int:
    """The peak above `held` of scores and of their gradient in the pictures."""
    allocator.trim()
    meter = PeakMeter()
    with torch.inference_mode(False), torch.enable_grad():
        x_BCHW = torch.zeros(copies, *shape, requires_grad=True)
        torch.autograd.grad(scores_of(model, x_BCHW).sum(), x_BCHW)
    return max(1, meter.peak() - held)
