"""From what a probe measured to what a run will hold.

A probe runs real steps of the real model at growing micro-batches and reads the exact peak of each.
Between two measured sizes the cost is a straight line; past the largest it is that line drawn on. On
the CPU this holds to a few percent where fused kernels and the allocator make a traced estimate
err by up to 77 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from caudal.core.config import Frozen
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.memory.plan import Holder, Point, Pool


class Step(Frozen):
    """One measured training step: its peak above `ProbeResult.imported`, by pool, and its time.

    `heap` and `recompute` are the positions of those levers. `left` is what it leaves behind: kernels.
    """

    micro_batch: int
    heap: int = 0
    recompute: int = 0
    ram: Bytes
    left: Bytes = Bytes(0)
    vram: Bytes = Bytes(0)
    seconds_per_sample: float


class Forward(Frozen):
    """One measured inference of a square tile of `side_px`: its peak above the model alone."""

    side_px: int
    ram: Bytes
    vram: Bytes = Bytes(0)
    seconds: float


class ProbeResult(Frozen):
    """What a throw-away child process measured of a model on this machine.

    `imported` is the interpreter with its libraries; `static` the exact bytes of weights, gradients,
    optimizer state and averaged weights; `forwards` is empty where inference was not measured. `decodings`
    are what numbers of decoding threads hold, `scoring` what inference of an image of the set holds in all
    and `scoring_left` what it leaves behind (kernels, which the peaks of `steps` hold nothing of);
    `scoring_vram` is what it holds on the device beside `static`.
    `elsewhere_seconds` is what a step takes more whose optimizer state lies elsewhere (0: not measured), and
    `elsewhere_bytes` what it holds of it at a time. `headline` is the figure by which models of its task are
    compared.
    """

    device: str
    imported: Bytes
    static: dict[str, int]
    steps: tuple[Step, ...] = ()
    forwards: tuple[Forward, ...] = ()
    decodings: tuple[tuple[int, Bytes], ...] = ()
    scoring: Bytes = Bytes(0)
    scoring_left: Bytes = Bytes(0)
    scoring_vram: Bytes = Bytes(0)
    elsewhere_seconds: float = 0.0
    elsewhere_bytes: Bytes = Bytes(0)
    precision: str = "fp32"
    headline: str = ""
    device_free: Bytes = Bytes(0)

    @property
    def static_bytes(self) -> Bytes:
        """Bytes that are held whatever the micro-batch."""
        return Bytes(sum(self.static.values()))


def static_holders(static: Mapping[str, int], pool: Pool = "ram") -> list[Holder]:
    """A row for each part that is held whatever the micro-batch."""
    return [Holder(name=_(name), bytes=Bytes(held), pool=pool) for name, held in static.items() if held]


def line(points: list[tuple[float, float]], at: float) -> float:
    """The measured value at `at`, or a straight line through its nearest two neighbours.

    One point alone is taken as proportional. Never below the smallest measured value.
    """
    assert points
    points = sorted(points)
    for x, y in points:
        if x == at:
            return y
    if len(points) == 1:
        return points[0][1] * at / points[0][0]
    right = next((i for i, (x, _y) in enumerate(points) if x > at), len(points) - 1)
    (x0, y0), (x1, y1) = points[max(right, 1) - 1], points[max(right, 1)]
    return max(min(y for _x, y in points), y0 + (y1 - y0) * (at - x0) / (x1 - x0))


def _measured(probe: ProbeResult, point: Point) -> list[Step]:
    """The steps with the levers at these positions, of all micro-batches."""
    return [s for s in probe.steps if (s.heap, s.recompute) == (point.heap, point.recompute)]


def step_bytes(probe: ProbeResult, point: Point) -> tuple[Bytes, Bytes]:
    """Predicted peak of a step above the static bytes: (ram, vram)."""
    steps = _measured(probe, point)
    ram = line([(s.micro_batch, s.ram) for s in steps], point.micro_batch)
    vram = line([(s.micro_batch, s.vram) for s in steps], point.micro_batch)
    return Bytes(ram + _of_the_first(probe, point)), Bytes(vram)


def left_bytes(probe: ProbeResult, point: Point) -> Bytes:
    """What steps leave behind on the host, once they are over."""
    own = line([(s.micro_batch, s.left) for s in _measured(probe, point)], point.micro_batch)
    return Bytes(own + _of_the_first(probe, point))


def _of_the_first(probe: ProbeResult, point: Point) -> float:
    """What the first steps of a process leave and no later ones: threads and tables, for steps of any size.

    It was there already when the others were measured, and is no part of what these say.
    """
    first, *others = probe.steps
    itself = first in _measured(probe, point) and first.micro_batch == point.micro_batch
    return 0.0 if itself or not others else max(0.0, first.left - max(s.left for s in others))


def step_seconds(probe: ProbeResult, point: Point, batch: int) -> float:
    """Seconds of a step for each of the `batch` samples: measured, or those of the fastest size that was.

    Infinite where nothing was measured with the levers at these positions.
    """
    rates = {s.micro_batch: s.seconds_per_sample for s in _measured(probe, point)}
    if not rates:
        return math.inf
    more = probe.elsewhere_seconds / batch if point.optimizer else 0.0
    return (rates.get(point.micro_batch) or min(rates.values())) + more


def decoding_bytes(probe: ProbeResult, threads: int) -> Bytes:
    """What so many decoding threads hold."""
    return Bytes(line([(number, held) for number, held in probe.decodings], threads))


def forward_bytes(forwards: tuple[Forward, ...], area_px: float) -> tuple[Bytes, Bytes]:
    """Predicted peak of an inference over `area_px` pixels above the model: (ram, vram)."""
    ram = line([(f.side_px**2, f.ram) for f in forwards], area_px)
    vram = line([(f.side_px**2, f.vram) for f in forwards], area_px)
    return Bytes(ram), Bytes(vram)
