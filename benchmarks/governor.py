"""What it costs to watch and to be ready for a second try, as a share of a training step."""

from __future__ import annotations

import time
from statistics import median

import numpy as np
import torch

from benchmarks.rows import Row
from caudal.core.units import Bytes
from caudal.data.stream import Batch
from caudal.memory.governor import Governor, Rung
from caudal.memory.meters import Watch
from caudal.models.unet import UNet, UNetConfig
from caudal.tasks.segmentation.task import Segmentation
from caudal.training import precision
from caudal.training.adamw import AdamW
from caudal.training.step import Stepper

ROUNDS, STEPS = 100, 12
BATCH, SIDE, BANDS = 16, 96, 3


def row() -> Row:
    """The default model's steps with watch, governor and kept state, and without, in turns."""
    stepper, batch = _stepper(), _batch()
    ready = stepper._retry.keep
    for _warm in range(5):
        stepper.run(batch, 1e-3)

    def without() -> tuple[float, float]:
        stepper._retry.keep = lambda: None  # type: ignore[method-assign]
        return _seconds(stepper, batch)

    def watched() -> tuple[float, float]:
        stepper._retry.keep = ready  # type: ignore[method-assign]
        with Watch() as watch:
            watch.governor = Governor(Bytes(2**40), [Rung("nothing", lambda: False)], lambda _event: None)
            return _seconds(stepper, batch)

    ratios, busier, alone = [], [], []
    for number in range(ROUNDS):
        # Who goes first in a round changes: a machine that slows down favours neither.
        if number % 2:
            bare, more = without(), watched()
        else:
            more, bare = watched(), without()
        ratios.append(more[0] / bare[0] - 1)
        busier.append(more[1] / bare[1] - 1)
        alone.append(bare[0])
    held: list[float] = []
    for _look in range(300):
        began = time.perf_counter()
        ready()
        held.append(time.perf_counter() - began)
    return Row(
        f"training steps of the default model, batch {BATCH} of {SIDE}² × {BANDS}, watched and not, in turns",
        "< 0.5 % of step time",
        median(ratios) < 0.005,
        [
            (
                "longer by, median of rounds",
                f"{median(ratios):+.2%} ({min(ratios):+.2%} to {max(ratios):+.2%})",
            ),
            ("processor seconds more, median of rounds", f"{median(busier):+.2%}"),
            ("step alone", f"{1000 * median(alone):.1f} ms"),
            ("keeping the state before a step", f"{1e6 * median(held):.0f} µs"),
        ],
    )


def _stepper() -> Stepper:
    torch.manual_seed(0)
    model = UNet(BANDS, 2, UNetConfig()).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    number = precision.choose("cpu", "auto")

    def prepare(batch: Batch, part: slice) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.from_numpy(batch.x_BHWC[part]).permute(0, 3, 1, 2)
        return x, torch.from_numpy(batch.y_BHW[part])

    optimizer = AdamW(model.parameters(), 1e-3, 0.01)
    return Stepper(model, Segmentation(("0", "1")), optimizer, number.scaler(), number, prepare, BATCH, 1.0)


def _batch() -> Batch:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(BATCH, SIDE, SIDE, BANDS)).astype(np.float32)
    return Batch(x, (x[..., 0] > 0.3).astype(np.uint8), np.zeros(BATCH, np.int64), np.arange(BATCH), 0.0)


def _seconds(stepper: Stepper, batch: Batch) -> tuple[float, float]:
    """Of a step: by the clock, and of processors."""
    began, used = time.perf_counter(), time.process_time()
    for _step in range(STEPS):
        stepper.run(batch, 1e-3)
    return (time.perf_counter() - began) / STEPS, (time.process_time() - used) / STEPS
