"""What a probe measures: a model with all that a run's step needs, and real steps of it, size after size.

Belongs to the probe's process: what it allocates stays there.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from caudal.core.errors import OutOfMemory
from caudal.core.units import Bytes
from caudal.memory import allocator, vram
from caudal.memory.cost import Step, line
from caudal.memory.file_systems import on_disk
from caudal.memory.levers.checkpointing import Checkpointing
from caudal.memory.levers.heap import Heap
from caudal.memory.limits import available_ram
from caudal.memory.meters import PeakMeter, charged_bytes
from caudal.models.anomaly_map import Fitted
from caudal.runs import assemble
from caudal.runs.probe import ProbeRequest
from caudal.runs.refusal import static_bytes
from caudal.runs.work.base import Rehearsal
from caudal.tasks.base import Task
from caudal.training.adamw import AdamW
from caudal.training.average import Average
from caudal.training.fit import Taker
from caudal.training.precision import Precision
from caudal.training.state_elsewhere import at_once_bytes
from caudal.training.step import FIRST_PARTS, equal_parts

COMFORT = 0.7
"""Of the room for a step: past it, what takes less and longer is measured, too."""
_NO_TIME = 1e-9  # it was measured, and is in the time of a step
_WORTH_BRINGING = 0.05  # of the budget: an optimizer state below it stays where it is
_LONG_SECONDS = 10.0  # of one size: steps as long as that show a heap's slack sooner
_AT_LEAST = 6  # steps
_QUICK_SECONDS = 1.5  # of one size: steps that take less are repeated, as the heap grows for some


@dataclass(frozen=True)
class Room:
    """Bytes for a step beside what is held whatever the step; `vram` is `None` where there is no device."""

    ram: float
    vram: float | None = None

    @property
    def where_it_computes(self) -> float:
        """Of the pool that holds activations."""
        return self.ram if self.vram is None else self.vram

    def holds(self, ram: float, vram: float, share: float = 1.0) -> bool:
        """Whether so much fits into that share of it, each pool by itself."""
        return ram <= share * self.ram and (self.vram is None or vram <= share * self.vram)

    def and_more(self, nbytes: int) -> Room:
        """With so much more where activations are."""
        if self.vram is None:
            return Room(self.ram + nbytes)
        return Room(self.ram, self.vram + nbytes)


@dataclass
class Subject:
    """A model beside `imported` bytes of libraries; `held` of its `static` bytes are in this process.

    `ram` is the budget of the host (`None` where what is measured counts for others, too), `card` that of the
    device; `None` without one. `elsewhere` are the seconds of an update whose optimizer state lies elsewhere,
    and the bytes that are held of it at a time; zeros where not measured. `left_by_scoring` is what scoring
    left in this process before the first step.
    """

    rehearsal: Rehearsal
    task: Task
    model: nn.Module
    precision: Precision
    stepper: Any
    average: Average
    static: dict[str, int]
    device: str
    imported: Bytes
    batch: int
    in_file: bool
    ram: Bytes | None
    card: Bytes | None = None
    elsewhere: tuple[float, Bytes] = (0.0, Bytes(0))
    left_by_scoring: int = 0

    def __post_init__(self) -> None:
        self._before_steps: Bytes | None = None

    @classmethod
    def make(
        cls,
        request: ProbeRequest,
        rehearsal: Rehearsal,
        device: str,
        imported: Bytes,
        card: Bytes | None = None,
    ) -> Subject:
        """The model of a spec as its run has it."""
        spec, task = request.spec, rehearsal.make_task()
        model = assemble.make_model(spec, rehearsal.inputs, rehearsal.outputs, device, rehearsal.config)
        prepare, parts = rehearsal.prepare(device), rehearsal.parts
        precision = assemble.choose_precision(model, device, spec.training.precision, parts is not None)
        scratch: Path | None = None
        stepper: Any
        if isinstance(model, Fitted):
            stepper, average = Taker(model, prepare, parts or equal_parts, 1), Average(model, 0)
        else:
            alone = sum(static_bytes(model, None if spec.training.average else model).values())
            # What would not fit beside the libraries is not tried with all of the optimizer's state here.
            tight = imported + alone > COMFORT * request.ram if card is None else alone > COMFORT * card
            scratch = _scratch(device) if tight else None
            stepper, average = assemble.make_stepper(spec, task, model, prepare, parts, precision, 1, scratch)
            stepper.smaller = ()  # a size that finds no room is not measured with parts of another
        return cls(
            rehearsal=rehearsal,
            task=task,
            model=model,
            precision=precision,
            stepper=stepper,
            average=average,
            static=static_bytes(model, average.model),
            device=device,
            imported=imported,
            batch=max(request.exact),
            in_file=scratch is not None,
            ram=None if request.thrifty else request.ram,
            card=card,
            elsewhere=(_NO_TIME, at_once_bytes(list(model.parameters()))) if scratch else (0.0, Bytes(0)),
        )

    def room(self, ram: Bytes) -> Room:
        """What a budget of `ram`, and that of the card, leave for a step."""
        if self.card is None:
            return Room(ram - self.imported - self.held)
        return Room(ram - self.imported, self.card - self.held)

    def at_hand(self, room: Room) -> Room:
        """What of `room` this machine has now: whoever asked lies beside this process, and others may."""
        beside = self.imported + self.left_by_scoring + (self.held if self.card is None else 0)
        try:
            here = charged_bytes() + available_ram() - beside
        except RuntimeError:  # nothing here tells of limits
            return room
        return Room(min(room.ram, here), room.vram)

    @property
    def held(self) -> int:
        """Bytes of its parts that this process holds where it computes."""
        return sum(self.static.values()) - (self.static["optimizer"] if self.in_file else 0)

    def step_levers(self) -> list[tuple[int, int]]:
        """Positions of `heap` and `checkpointing` that are worth measuring, the dearest in memory first."""
        levels = Checkpointing(int(getattr(self.model, "recompute_levels", 0))).positions()
        if self.card is not None:  # a device's allocator takes again what it keeps; the heap is the host's
            return [(Heap.KEPT, recompute) for recompute in levels]
        return [(Heap.KEPT, 0), *((Heap.GIVEN_BACK, recompute) for recompute in levels)]

    def steps(self, sizes: Sequence[int], room: Room, meter: PeakMeter, wanted: int) -> Iterator[Step]:
        """Measure steps of growing micro-batches, as far as the room allows.

        Where one takes long, the next size is left out, if it is not the `wanted` one: the line through its
        neighbours stands for it, and where the larger of them does not fit, it is measured in its place.
        """
        measured: list[Step] = []
        todo, left_out = list(sizes), list[int]()
        while todo:
            size, began = todo.pop(0), time.monotonic()
            fits = not _would_not_fit(measured, size, room)
            step = self._tried(size, meter, smallest=not measured) if fits else None
            if step is None:
                todo, left_out = left_out, []
                continue
            measured.append(step)
            yield step
            long = time.monotonic() - began > _LONG_SECONDS
            left_out = [todo.pop(0)] if long and len(todo) > 1 and todo[0] != wanted else []

    def _tried(self, size: int, meter: PeakMeter, smallest: bool) -> Step | None:
        """What a step takes, or `None` where the device has no room for it."""
        try:
            with allocator.fresh():  # a run begins with this size, and not with what others left
                return self._step(size, meter, smallest)
        except OutOfMemory:
            if self.card is None:
                raise
            self.stepper.optimizer.zero_grad()
            return None

    def _step(self, size: int, meter: PeakMeter, smallest: bool) -> Step:
        self.stepper.micro_batch = size
        vram.trim()
        vram.reset_peak()
        left = self._left_so_far()  # kernels of other shapes
        beside = self.imported + self.left_by_scoring + left + (self.held if self.device == "cpu" else 0)
        # Where samples differ, only a whole batch is cut as batches are.
        count = self.batch if self.rehearsal.parts else min(2 * size, self.batch)
        seconds: list[float] = []
        peak = samples = 0
        wanted = self.rehearsal.steps + -(-FIRST_PARTS * size // count)
        for number in range(max(_AT_LEAST, wanted)):
            if number >= wanted and sum(seconds) > _QUICK_SECONDS:
                break
            batch = self.rehearsal.batch(count, number)
            meter.reset()
            began, samples = time.perf_counter(), batch.size
            self.stepper.run(batch, 1e-4)
            self.average.update(self.model, number)
            seconds.append(time.perf_counter() - began)
            peak = max(peak, meter.peak() - batch.nbytes)
            if sum(seconds) > _LONG_SECONDS and len(seconds) >= _AT_LEAST:
                break
            if smallest and number and self._is_hopeless(peak - beside):
                break  # how much more it takes in the end helps nobody
        on_device = vram.peak_since_reset() if self.device == "cuda" else None
        allocator.trim()
        return Step(
            micro_batch=size,
            left=Bytes(max(0, self._left_so_far() - left)),
            ram=Bytes(max(0, peak - beside)),
            vram=Bytes(max(0, (on_device or self.held) - self.held)),
            # The first of a size makes the kernels for it.
            seconds_per_sample=min(seconds[1:]) / samples,
        )

    def _is_hopeless(self, ram: int) -> bool:
        """Whether a step's `ram` passes its room by more than the optimizer's state, which may leave."""
        return self.ram is not None and ram > self.room(self.ram).ram + self.static["optimizer"]

    def _left_so_far(self) -> int:
        """Bytes that steps of all sizes have left here so far; 0 before the first."""
        if self._before_steps is None:
            if self.static["optimizer"] and not self.in_file:
                for state in self.stepper.optimizer.tensors().values():
                    state.zero_()  # what nobody has written to is charged in the first step, or before it
            self._before_steps = charged_bytes()
            return 0
        return max(0, charged_bytes() - self._before_steps)

    def bring_elsewhere(self, ram: Bytes) -> int:
        """Measure an update whose state lies elsewhere, where much is to win; gives the bytes that it frees.

        That is a file where Python keeps what is temporary (a run's lies in its folder), or the host's memory
        beside a device.
        """
        done = self.elsewhere[0] > 0 or isinstance(self.model, Fitted)
        budget = ram if self.card is None else self.card
        if done or self.static["optimizer"] < _WORTH_BRINGING * budget:
            return 0
        if (scratch := _scratch(self.device)) is None:
            return 0
        weights = list(self.model.parameters())
        optimizer = AdamW(weights, 0.0, 0.0, elsewhere=scratch)
        seconds = []
        for weight in weights:
            weight.grad = weight.new_zeros(weight.shape)
        for _time in range(2):
            began = time.perf_counter()
            optimizer.step()
            seconds.append(time.perf_counter() - began)
        self.stepper.optimizer.zero_grad()
        self.elsewhere = (max(seconds[-1], _NO_TIME), at_once_bytes(weights))
        return self.static["optimizer"]


def _scratch(device: str) -> Path | None:
    """A folder for an optimizer's state beside this process; a device has it in the host's memory."""
    folder = Path(tempfile.gettempdir())
    return on_disk(folder) if device == "cpu" else folder


def _would_not_fit(steps: list[Step], size: int, room: Room) -> bool:
    """Whether a step passes the room, as the steps before it say; of one alone all grows."""
    if not steps:
        return False
    ram = line([(step.micro_batch, step.ram) for step in steps], size)
    return not room.holds(ram, line([(step.micro_batch, step.vram) for step in steps], size))
