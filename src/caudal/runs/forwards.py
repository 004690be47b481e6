"""Small real inferences of growing size, which say what a model takes that was not measured on this device.

Where its weights leave little room beside them, a child process makes them: should the kernel have to end
somebody, it is that one, and its parent can say why.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from caudal.core.units import Bytes
from caudal.inference.forward import Forward
from caudal.memory import cost, vram
from caudal.memory.cost import Forward as Measured
from caudal.memory.meters import PeakMeter, Watch, charged_bytes
from caudal.memory.process import first_to_go
from caudal.runs.tiling import FORWARD_SIDES_PX
from caudal.training.retry import ran_out

_WITHOUT_LIMIT = 2  # sides, the largest: more say nothing new
_HERTZ = 100.0


def layer_bytes(model: nn.Module) -> int:
    """Roughly what computing the layer with most weights takes beside them: those laid out for the kernel,
    or in half the bytes and then laid out.
    """  # fmt: skip
    return max((w.numel() * w.element_size() for w in model.parameters()), default=0)


def peak_of(forward: Forward, x_NHWC: npt.NDArray[Any], mapped: bool) -> Bytes:
    """The most bytes that this process holds while it infers; `mapped` weights make the exact mark useless.

    Their pages come and go, and the kernel's high-water mark counts them, which are not charged: then it is
    the most that a hundred readings a second see.
    """
    if mapped:
        with Watch(_HERTZ) as watch:
            forward(x_NHWC, None)
        return watch.peak
    meter = PeakMeter()
    forward(x_NHWC, None)
    return meter.peak()


def measure(
    forward: Forward,
    bands: int,
    dtype: str = "uint8",
    mapped: bool = False,
    room: Bytes | None = None,
    on_device: bool = False,
    most_px: int | None = None,
) -> Iterator[Measured]:
    """Inferences of growing squares, above what is held now, as long as the next should fit into `room`.

    On a device they go on as long as it has room; it may be that it has none for the smallest. After the
    first two, none follows one that holds a square of `most_px`.
    """
    ready = charged_bytes()
    found: list[Measured] = []
    unlimited = room is None and not on_device
    for side in FORWARD_SIDES_PX[-_WITHOUT_LIMIT:] if unlimited else FORWARD_SIDES_PX:
        if room is not None and _too_much(found, side, room):
            return
        x_NHWC = np.zeros((1, side, side, bands), dtype)
        vram.trim()
        vram.reset_peak()
        before = vram.charged() or 0
        began = time.perf_counter()
        try:
            ram = Bytes(max(1, peak_of(forward, x_NHWC, mapped) - ready))
        except RuntimeError as error:
            if not (on_device and ran_out(error)):
                raise
            return
        seconds = time.perf_counter() - began
        on_card = Bytes(max(0, (vram.peak_since_reset() or 0) - before))
        found.append(Measured(side_px=side, ram=ram, vram=on_card, seconds=seconds))
        yield found[-1]
        if most_px is not None and side >= most_px and len(found) > 1:
            return


def of_tiles(forward: Forward, bands: int, dtype: str, on_device: bool, room: Bytes) -> tuple[Measured, ...]:
    """The two largest inferences of those that may take `room` bytes, or that a device has room for.

    Smaller ones fit into what lies free in the heap, as if they took nothing.
    """
    limit = None if on_device else room
    return tuple(measure(forward, bands, dtype, room=limit, on_device=on_device))[-2:]


def _too_much(found: list[Measured], side: int, room: Bytes) -> bool:
    """One alone tells nothing of the next: most of it may be the layers' weights."""
    if len(found) < 2:
        return bool(found) and found[0].ram > room
    return cost.forward_bytes(tuple(found), side**2)[0] > room


@dataclass(frozen=True)
class Asked:
    """What a child measured, empty where not even the smallest fits; the most held by it and its parent."""

    found: tuple[Measured, ...]
    held: Bytes


def ask(path: Path, device: str, position: int, ram: Bytes, most_px: int | None = None) -> Asked:
    """The same from a child that opens the model at `path` itself, and both together hold `ram` at most.

    `position` is that of the weights.
    """
    own = charged_bytes()
    room = str(int(ram - own))
    words = [sys.executable, "-m", "caudal.runs.forwards_child", str(path), device, str(position), room]
    if most_px is not None:
        words.append(str(most_px))
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        first_to_go(child.pid)
        output, errors = child.communicate()
    assert child.returncode in (0, -9), f"measuring {path} failed:\n{errors}"
    base, *rows = [json.loads(text) for text in output.splitlines()] or [0]
    found = tuple(Measured.model_validate(row) for row in rows)
    return Asked(found, Bytes(own + base + max((one.ram for one in found), default=0)))
