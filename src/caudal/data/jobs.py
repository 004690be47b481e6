"""Steps on their way to memory: put together where they are small, cut where they are larger than the ring.

What a gather costs beside its bytes is paid once for all steps of a job. It changes who comes together in
memory, never which samples a step has nor the order of steps.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from caudal.data.batches import Batch
from caudal.data.sample_files.base import Array, Field, Ints
from caudal.data.sample_set import SampleSet
from caudal.data.steps import Step
from caudal.data.stream_size import StreamSize
from caudal.memory.arena import ALIGNMENT_BYTES
from caudal.memory.ring import RingLease

_MOST_STEPS = 16
_RING_SHARE = 6  # jobs of several steps that fit into the ring
_JOINED_FIELDS = 3


@dataclass(frozen=True, slots=True)
class Portion:
    """The samples `begin` … `end` - 1 of a job: a step, or with `ends` false a part of one but the last."""

    step: Step
    begin: int
    end: int
    ends: bool


@dataclass
class Job:
    """Batches that are made in one go, in one lease of the ring. `pending` pieces of them are not there yet.

    `whole` is all of them as one, while it is filled, and takes `whole_bytes` of the lease. `given` of them
    were handed out. All portions are of one epoch.
    """

    portions: list[Portion]
    samples: Ints
    visits: Ints
    nbytes: int
    lease: RingLease | None = None
    whole: Batch | None = None
    whole_bytes: int = 0
    batches: list[Batch] = field(default_factory=list)
    pending: int = 0
    given: int = 0
    gathered: bool = False
    apart: dict[str, list[Array]] = field(default_factory=dict)
    lent: list[tuple[Field, int]] = field(default_factory=list)
    replaced: bool = False

    @property
    def epoch(self) -> int:
        """The epoch of all its steps."""
        return self.portions[0].step.epoch

    @property
    def first_open(self) -> int:
        """Visits before this one are over once its samples are gathered from."""
        return self.portions[0].step.first_open

    @property
    def first_closed(self) -> int:
        """Visits before this one have to be there."""
        return self.portions[-1].step.first_closed

    @property
    def made(self) -> Batch:
        """All batches as one, once it is laid out."""
        assert self.whole is not None
        return self.whole


class Jobs:
    """The jobs of `steps`, in order. Those that reach over up to `most_visits` are put together (0: none)."""

    def __init__(
        self, samples: SampleSet, size: StreamSize, steps: Generator[Step], most_visits: int
    ) -> None:
        self._set, self._size, self._steps, self._most_visits = samples, size, steps, most_visits
        self._ahead: Step | None = None
        self._most_steps = 1  # doubled from job to job: the first batch has nobody to wait for
        self._gaps = (len(samples.fields) + _JOINED_FIELDS * samples.joined) * ALIGNMENT_BYTES

    def close(self) -> None:
        """Draw no more. Steps that wait to be drawn would hold whoever draws them, and its memory."""
        self._steps.close()

    def draw(self) -> list[Job]:
        """The next job, or all jobs of a step that is too large for one; none at the end."""
        step = self._next()
        if step is None:
            return []
        sizes = self._set.sample_bytes(step.samples)
        pieces = self._size.parts(sizes)
        if len(pieces) > 1 or not self._most_visits:
            last = len(pieces) - 1
            return [self._part(step, sizes, i, j, k == last) for k, (i, j) in enumerate(pieces)]
        return [self._together(step, int(sizes.sum()))]

    def _part(self, step: Step, sizes: Ints, i: int, j: int, is_last: bool) -> Job:
        portion = Portion(step, 0, j - i, is_last and step.ends)
        nbytes = int(sizes[i:j].sum()) + self._gaps
        return Job([portion], step.samples[i:j], step.visits[i:j], nbytes)

    def _together(self, step: Step, nbytes: int) -> Job:
        steps = [step]
        while len(steps) < self._most_steps:
            self._ahead = following = self._next()
            if following is None or following.epoch != step.epoch:
                break
            more = int(self._set.sample_bytes(following.samples).sum())
            too_far = following.first_closed - step.first_open > self._most_visits
            if too_far or nbytes + more > self._size.ring_bytes // _RING_SHARE:
                break
            nbytes += more
            steps.append(following)
            self._ahead = None
        self._most_steps = min(2 * self._most_steps, _MOST_STEPS)
        stops = np.cumsum([0, *(len(one.samples) for one in steps)]).tolist()
        portions = [
            Portion(one, begin, end, one.ends)
            for one, (begin, end) in zip(steps, pairwise(stops), strict=True)
        ]
        if len(steps) == 1:
            return Job(portions, step.samples, step.visits, nbytes + self._gaps)
        samples = np.concatenate([one.samples for one in steps])
        return Job(portions, samples, np.concatenate([one.visits for one in steps]), nbytes + self._gaps)

    def _next(self) -> Step | None:
        step, self._ahead = self._ahead, None
        return next(self._steps, None) if step is None else step
