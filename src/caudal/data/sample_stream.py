"""The stream over samples: steps in a fixed order, read by threads into memory that was granted before.

Two ways, by how the set lies. Large samples are read one by one, straight to their place in the batch
(`direct`). Small ones are read block by block into cells, from which batches are gathered. Batches lie in a
ring, in the order in which they are handed out. Whoever is free takes the next piece of work: gather what is
complete, else plan the next batch, else read the next block. A batch needs no memory but its own and that
of blocks which come before it in the order, and there is enough for the largest: so nobody waits for ever.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from caudal.core.errors import UsageError
from caudal.core.messages import _
from caudal.data.assembly import Assembly
from caudal.data.batches import Batch
from caudal.data.cells import Cells
from caudal.data.index import Names
from caudal.data.jobs import Job, Jobs
from caudal.data.quarantine import Quarantine
from caudal.data.sample_files.base import Array, Ints
from caudal.data.sample_set import Columns, SampleSet
from caudal.data.steps import Cut, Rank, Step, Steps
from caudal.data.stream_size import StreamSize
from caudal.data.tuner import Tuner
from caudal.data.turns import Turns
from caudal.memory.arena import Arena
from caudal.memory.ring import Ring

_TASK_BYTES = 2**23  # samples that one thread reads at a time: enough to be worth a turn, little to wait for

Task = Callable[[], None]


@dataclass
class Meter:
    """What happened, in seconds of all threads together, samples and bytes."""

    read_seconds: float = 0.0
    gather_seconds: float = 0.0
    stall_seconds: float = 0.0
    room_seconds: float = 0.0
    transform_seconds: float = 0.0
    samples: int = 0
    batches: int = 0
    blocks_read: int = 0
    blocks_kept: int = 0


class SampleStream:
    """Steps from (`epoch`, `position`) on, for `epochs` epochs, as an iterator. `close` it, or use `with`."""

    def __init__(
        self,
        samples: SampleSet,
        size: StreamSize,
        cut: Cut,
        *,
        seed: int,
        shuffle: bool,
        epochs: int,
        threads: int,
        rank: Rank,
        quarantine: Quarantine,
        epoch: int = 0,
        position: int = 0,
        debug: bool = False,
        shared: bool = False,
    ) -> None:
        samples = replace(samples, columns=_plain(samples.columns))
        self._set, self._size, self._cut, self._rank = samples, size, cut, rank
        self._seed, self._shuffle, self._epochs = seed, shuffle, epochs
        self._debug = debug
        self.epoch, self.position = epoch, position
        self.meter = Meter()
        self._arena = Arena(size.arena_bytes, shared)
        self._ring = Ring(self._arena, size.ring_bytes)
        self._cells = Cells(self._arena, samples, size.cell, size.cells) if size.cells else None
        self._assembly = Assembly(samples, quarantine, shared)
        self._jobs = Jobs(samples, size, self._all_steps(epoch, position), self._most_visits(threads))
        self._upcoming = deque[Job]()  # drawn, without memory
        self._planned = deque[Job]()  # with memory, in the order in which they are handed out
        self._in_use: Job | None = None
        self._tasks = deque[Task]()
        self._lingering: list[tuple[int, list[object]]] = []
        self._cell_of: dict[int, int] = {}  # visit → cell
        self._loaded: set[int] = set()  # visits from `_all_loaded` on whose blocks are there
        self._kept: dict[int, int] = {}  # block → cell, kept over epochs
        self._kept_cells: set[int] = set()
        self._oldest = self._next_visit = self._all_loaded = -1  # visits before `_oldest` are over
        self._turns: dict[int, Turns] = {}
        self._changed = threading.Condition()
        self._tuner, self._working = Tuner(threads), 0
        self._error: BaseException | None = None
        self._closed = self._drained = False
        with self._changed:
            self._draw()
        self._threads = [
            threading.Thread(target=self._work, name=f"caudal-stream-{k}", daemon=True)
            for k in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def arena(self) -> Arena:
        """Where its batches lie."""
        return self._arena

    # The order ------------------------------------------------------------------------------------------

    def _turns_of(self, epoch: int) -> Turns:
        if epoch not in self._turns:
            self._turns[epoch] = Turns(
                self._set.drawn_ends,
                self._size.open_blocks,
                self._seed,
                epoch,
                self._shuffle,
                self._set.chosen,
            )
            self._turns.pop(epoch - 3, None)
        return self._turns[epoch]

    def _all_steps(self, epoch: int, position: int) -> Generator[Step]:
        for one in range(epoch, self._epochs):
            most = self._size.cells or 2**62
            steps = Steps(self._set, self._turns_of(one), one, self._cut, self._rank, most)
            yield from steps.after(position)
            position = 0

    def _most_visits(self, threads: int) -> int:
        """Visits that the steps of a job may reach over: what cells have room for, whatever stays there."""
        if not self._cells or self._debug:  # in debug mode a batch's memory is spoiled as soon as it is over
            return 0
        blocks = len(self._set.drawn_ends)
        kept = self._size.kept_cells
        return blocks if kept >= blocks else max(1, self._size.cells - kept - threads)

    def _draw(self) -> None:
        """Draw the next steps, in as many parts as the ring needs; with the lock held."""
        drawn = self._jobs.draw()
        self._drained = not drawn
        self._upcoming.extend(drawn)
        if drawn and self._next_visit < 0:  # where the run begins, or goes on
            self._oldest = self._next_visit = self._all_loaded = self._visit(
                drawn[0].epoch, drawn[0].first_open
            )
        self._release_blocks()

    def _visit(self, epoch: int, visit: int) -> int:
        """A visit's number over all epochs."""
        return epoch * len(self._set.drawn_ends) + visit

    # The threads ----------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while True:
                with self._changed:
                    began = time.perf_counter()
                    while not (task := self._next_task()):
                        if self._closed or self._error or (self._drained and not self._upcoming):
                            return
                        self._changed.wait()
                    self._working += 1
                    self.meter.room_seconds += time.perf_counter() - began
                task()
                with self._changed:
                    self._working -= 1
        except BaseException as error:  # handed to the consumer, who raises it
            with self._changed:
                self._error = self._error or error
                self._changed.notify_all()

    def _next_task(self) -> Task | None:
        """The most urgent piece of work that can be done now; with the lock held."""
        if self._closed or self._error or self._working >= self._tuner.allowed:
            return None
        if not self._tasks:
            self._plan()
        if self._tasks:
            return self._tasks.popleft()
        return self._next_load() if self._cells else None

    def _plan(self) -> None:
        """Give the next batch its memory, if what it needs is there."""
        if not self._upcoming:
            return
        job = self._upcoming[0]
        if self._cells and not self._is_loaded(job):
            return
        lease = self._ring.lease(job.nbytes)
        if lease is None:
            return
        self._upcoming.popleft()
        job.lease = lease
        self._planned.append(job)
        if self._cells:
            job.pending = 1
            self._tasks.append(lambda: self._gather(job))
        else:
            self._assembly.lay_out(job, job.samples)
            sizes = np.cumsum(self._set.sample_bytes(job.samples))
            cuts = np.flatnonzero(np.diff(sizes // _TASK_BYTES)) + 1
            pieces = np.split(np.arange(len(job.samples)), cuts)
            job.pending = len(pieces)
            for piece in pieces:
                self._tasks.append(lambda piece=piece: self._read(job, piece))  # type: ignore[misc]
            self._changed.notify(len(pieces) - 1)
        if not self._upcoming:
            self._draw()

    def _finish(self, job: Job) -> None:
        """Note that a piece of a job is there; the last one makes its batches."""
        with self._changed:
            if job.pending > 1:
                job.pending -= 1
                return
        self._assembly.complete(job)
        with self._changed:
            job.pending = 0
            if job is self._planned[0]:
                self._changed.notify_all()

    def _read(self, job: Job, piece: Ints) -> None:
        began = time.perf_counter()
        self._assembly.read(job, piece)
        self.meter.read_seconds += time.perf_counter() - began
        self._finish(job)

    # Small samples, by block ----------------------------------------------------------------------------

    def _is_loaded(self, job: Job) -> bool:
        return self._visit(job.epoch, job.first_closed) <= self._all_loaded

    def _has_loaded(self, visit: int) -> None:
        """Note that a visit's block is there; with the lock held."""
        self._loaded.add(visit)
        while self._all_loaded in self._loaded:
            self._loaded.discard(self._all_loaded)
            self._all_loaded += 1

    def _next_load(self) -> Task | None:
        assert self._cells
        visits = len(self._set.drawn_ends)
        while True:
            visit = self._next_visit
            if visit < 0 or visit >= min(self._epochs * visits, self._oldest + self._size.cells):
                return None  # blocks that are kept cost nothing to open, but each visit takes a note
            epoch, within = divmod(visit, visits)
            block = int(self._turns_of(epoch).blocks(within, within + 1)[0])
            if block in self._kept:
                self._cell_of[visit] = self._kept[block]
                self._has_loaded(visit)
                self.meter.blocks_kept += 1
                self._next_visit += 1
                self._plan()
                if self._tasks:
                    self._changed.notify()
                    return self._tasks.popleft()
                continue
            if not self._cells.free:
                return None
            self._next_visit += 1
            cell = self._cells.free.pop()
            self._cell_of[visit] = cell
            if len(self._kept) < self._size.kept_cells:
                # Never given up again: the same hits in every epoch. Noted now, or the block would be read
                # twice where an epoch ends with it and the next begins with it; whoever wants it there waits
                # for this visit, too.
                self._kept[block] = cell
                self._kept_cells.add(cell)
            return lambda: self._load(visit, block, cell)

    def _load(self, visit: int, block: int, cell: int) -> None:
        assert self._cells
        began = time.perf_counter()
        self._assembly.load(self._cells, block, cell)
        with self._changed:
            self.meter.read_seconds += time.perf_counter() - began
            self.meter.blocks_read += 1
            self._has_loaded(visit)  # nobody is woken: whoever read the last block of a job gathers it

    def _gather(self, job: Job) -> None:
        assert self._cells
        began = time.perf_counter()
        self._assembly.gather(job, self._cells, self._cell_of, self._visit(job.epoch, 0))
        with self._changed:
            self.meter.gather_seconds += time.perf_counter() - began
            job.gathered = True
            self._release_blocks()
        self._finish(job)

    def _release_blocks(self) -> None:
        """Free the cells of visits that no batch needs any more; with the lock held."""
        if not self._cells:
            return
        waiting = next((job for job in self._planned if not job.gathered), None)
        waiting = waiting or (self._upcoming[0] if self._upcoming else None)
        if waiting is None:
            return
        until = self._visit(waiting.epoch, waiting.first_open)
        while self._oldest < until:
            cell = self._cell_of.pop(self._oldest, None)
            self._oldest += 1
            if cell is not None and cell not in self._kept_cells:
                self._cells.free.append(cell)
        self._changed.notify_all()

    # The consumer ---------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        with self._changed:
            self._take_back()
            began = time.perf_counter()
            while not (self._planned and not self._planned[0].pending):
                if self._error:
                    raise self._error
                if self._closed or (self._drained and not self._planned and not self._upcoming):
                    raise StopIteration
                self._changed.wait()
            self._in_use = job = self._planned[0]
            batch, portion = job.batches[job.given], job.portions[job.given]
            job.given += 1
            if job.given == len(job.portions):
                self._planned.popleft()
            batch.stall_seconds = time.perf_counter() - began
            if portion.ends:
                self.epoch, self.position = job.epoch, portion.step.last
            self.meter.stall_seconds += batch.stall_seconds
            self.meter.samples += batch.size
            self.meter.batches += 1
            if self._tuner.tell(batch.size, batch.stall_seconds, time.perf_counter()):
                self._changed.notify_all()
        return batch

    def _take_back(self) -> None:
        """Take the last batch back, and with the last of a job its memory; with the lock held."""
        job, self._in_use = self._in_use, None
        if job is None:
            return
        arrays = job.batches[job.given - 1].release()
        if job.given < len(job.portions):
            return
        assert job.lease is not None
        if job.apart:  # the most urgent: what was changed there is not in the ring, and takes memory
            self._tasks.appendleft(lambda: self._assembly.take_back(job))
        if self._debug:
            job.lease.fill(0xAB)  # whoever still looks sees that it is gone
            self._check_released(arrays)
        self._ring.give_back()
        self._changed.notify_all()

    def _check_released(self, arrays: dict[str, Array]) -> None:
        """In debug mode, find views that were kept past the batch after theirs.

        Raises:
            UsageError: there is one.
        """
        self._lingering.append((self.meter.batches - 1, [a.base for a in arrays.values()]))
        if len(self._lingering) < 2:
            return
        number, buffers = self._lingering.pop(0)
        # One reference is the list's, one the loop's, one the function's.
        if any(sys.getrefcount(buffer) > 3 for buffer in buffers if buffer is not None):
            raise UsageError(
                _("A view of batch {number} is still held after the next batch was used.").format(
                    number=number
                ),
                _("Its memory holds other samples now; keep a copy (clone)."),
            )

    def state_dict(self) -> dict[str, int]:
        """Where the next step begins. Threads hold no state, and batches on their way need not be saved."""
        return {"seed": self._seed, "epoch": self.epoch, "position": self.position}

    def close(self) -> None:
        """Stop the threads and give everything back; safe to call twice."""
        with self._changed:
            self._closed = True
            self._tasks.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._jobs.close()
        self._assembly.close()
        self._arena.close()


def _plain(columns: Columns) -> Columns:
    """The same columns; those that are mapped from a file as arrays of that memory.

    A mapped array takes many times as long to look into, because each view of it keeps count of the file.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return value.view(np.ndarray)
        if isinstance(value, Mapping):
            return {name: plain(one) for name, one in value.items()}
        return Names(plain(value.blob), plain(value.ends)) if isinstance(value, Names) else value

    return Columns(**{one.name: plain(getattr(columns, one.name)) for one in fields(columns)})
