"""What happens in a run, as typed records: the one stream that every face reads.

The terminal, `events.jsonl`, TensorBoard and the service all listen to the same records; none is told
anything else. Times are seconds since the epoch; bytes are plain integers; shares lie in [0, 1].
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from caudal.core.files import disk_full, is_disk_full


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened; `kind` names it in files."""

    kind: ClassVar[str] = "event"
    time: float = field(default_factory=time.time, kw_only=True)


@dataclass(frozen=True, slots=True)
class RunStarted(Event):
    """A run began, or went on from a checkpoint (`step` > 0); `total_steps` are tiles or parts elsewhere."""

    kind = "run_started"
    task: str
    device: str
    step: int
    total_steps: int
    predicted_bytes: dict[str, int]
    budget_bytes: dict[str, int]
    verb: str = "train"


@dataclass(frozen=True, slots=True)
class Scanned(Event):
    """A pass over the data, before the work itself, went this far."""

    kind = "scanned"
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Warned(Event):
    """Something that the user should know; the run goes on."""

    kind = "warned"
    message: str


@dataclass(frozen=True, slots=True)
class SampleBroken(Event):
    """`count` samples from number `first` on could not be read and are replaced from now on."""

    kind = "sample_broken"
    file: str
    first: int
    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class StepDone(Event):
    """An optimizer step. `stall_seconds` is the time it waited for data."""

    kind = "step_done"
    step: int
    epoch: int
    loss: float
    learning_rate: float
    samples: int
    step_seconds: float
    stall_seconds: float


@dataclass(frozen=True, slots=True)
class Validated(Event):
    """Scores on the held-out part."""

    kind = "validated"
    step: int
    epoch: int
    metrics: dict[str, float | None]
    best: bool


@dataclass(frozen=True, slots=True)
class CheckpointSaved(Event):
    """A checkpoint is on disk, whole and verified."""

    kind = "checkpoint_saved"
    step: int
    path: str
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class MemoryRead(Event):
    """Charged bytes of the process tree, and of the device if there is one."""

    kind = "memory_read"
    ram: int
    vram: int | None


@dataclass(frozen=True, slots=True)
class TileDone(Event):
    """Rasters that are predicted or scored went this far, in tiles of all of them."""

    kind = "tile_done"
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class PartDone(Event):
    """Samples or images that are predicted, scored, explained or packed went this far."""

    kind = "part_done"
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class RunEnded(Event):
    """A run ended: `succeeded`, `interrupted` or `failed`; then `reason` is the error's code."""

    kind = "run_ended"
    outcome: str
    seconds: float
    samples_per_second: float | None
    stall: float | None
    peak_bytes: dict[str, int]
    metrics: dict[str, float | None]
    error: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class MemoryRelieved(Event):
    """Something was done to hold fewer bytes, or undone because there is room again.

    `act` names it, `why` says what led to it; `before` and `after` are charged bytes of the pool (`ram`,
    `vram`), `after` read once the act had time to show.
    """

    kind = "memory_relieved"
    act: str
    why: str
    pool: str
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class RunKilled(Event):
    """The process of a run did not end well by itself, as its watcher saw it.

    `reason` is `oom_host` (killed for want of memory), `oom_shm` (`/dev/shm` was full), `timeout`, `killed`
    (another signal) or `out_of_memory` (the run gave up, with a checkpoint). `peak_bytes` is the most that
    was read of it, `resident_bytes` the most that it had resident, `cpu_seconds` what it computed; `goes_on`
    whether it was started again on a smaller plan.
    """

    kind = "run_killed"
    reason: str
    signal: int
    seconds: float
    peak_bytes: int
    goes_on: bool
    resident_bytes: int = 0
    cpu_seconds: float = 0.0


Sink = Callable[[Event], None]

KINDS: dict[str, type[Event]] = {
    cls.kind: cls
    for cls in (
        RunStarted, Scanned, Warned, SampleBroken, StepDone, Validated, CheckpointSaved, MemoryRead, TileDone,
        PartDone, RunEnded, MemoryRelieved, RunKilled,
    )
}  # fmt: skip


class Events:
    """Passes each event on to everyone who listens, in order."""

    def __init__(self, *sinks: Sink) -> None:
        self._sinks = list(sinks)

    def listen(self, sink: Sink) -> None:
        """Let `sink` hear every event from now on."""
        self._sinks.append(sink)

    def __call__(self, event: Event) -> None:
        """Tell everyone."""
        for sink in self._sinks:
            sink(event)


class JsonLines:
    """Appends each event to a file as one line of JSON, flushed at once."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1)
        if path.stat().st_size and not _ends_with_newline(path):
            self._file.write("\n")  # a kill cut the last line; the next event begins its own

    def __call__(self, event: Event) -> None:
        """Write one line.

        Raises:
            DiskFull: no space was left for it.
        """
        try:
            self._file.write(encode(event) + "\n")
        except OSError as error:
            if is_disk_full(error):
                raise disk_full(Path(self._file.name)) from error
            raise

    def close(self) -> None:
        """Close the file; what found no space has been told."""
        with suppress(OSError):
            self._file.close()


class Paced:
    """Passes events on; of those that say how far something is, one each `seconds`, and the last."""

    def __init__(
        self, sink: Sink, seconds: float = 0.25, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._sink, self._seconds, self._clock = sink, seconds, clock
        self._next = clock()

    def __call__(self, event: Event) -> None:
        """Pass it on, or leave it out."""
        if isinstance(event, Scanned | TileDone | PartDone):
            now = self._clock()
            if now < self._next and event.done < event.total:
                return
            self._next = now + self._seconds
        self._sink(event)


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read() == b"\n"


def encode(event: Event) -> str:
    """One line of JSON, with the kind first."""
    return json.dumps({"kind": event.kind, **asdict(event)}, ensure_ascii=False)


def read(path: Path) -> Iterator[Event]:
    """The events of a file; a last line that was cut by a kill is left out."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                record: dict[str, Any] = json.loads(line)
            except json.JSONDecodeError:
                continue
            kind = KINDS.get(record.pop("kind"))
            if kind is not None:  # a later version may know more
                yield kind(**record)
