"""What happens to samples that cannot be read: tried again, put on a list, replaced, and counted.

The substitute is a pure function of the seed and the sample, so a resumed run has the same one. Too many,
and the run stops: nothing is skipped in silence.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import numpy as np

from caudal.core.errors import DataError, TooManyBroken, UnreadableFile
from caudal.core.events import Event
from caudal.core.messages import _
from caudal.core.seeds import integer
from caudal.data.broken import Broken
from caudal.data.open_parts import OpenParts
from caudal.data.sample_files.base import Array, Ints
from caudal.data.sample_set import SampleSet
from caudal.data.steps import Step

DEFAULT_LIMIT = 0.01
_TRIES = 2
_CANDIDATES = 64


class Quarantine:
    """Reads with care. `limit` is the largest share of the set's samples that may be broken.

    With `replace` others stand in for broken samples. Without, their places hold zeros, and whoever takes the
    batches leaves out what `is_broken`: a prediction for a substitute would be one for the wrong sample.
    """

    def __init__(
        self,
        samples: SampleSet,
        seed: int,
        limit: float = DEFAULT_LIMIT,
        tell: Callable[[Event], None] = lambda _event: None,
        *,
        replace: bool = True,
    ) -> None:
        self._set, self._seed, self._limit, self._tell = samples, seed, limit, tell
        self._replace = replace
        self.broken: list[Broken] = []
        self._numbers: set[int] = set()
        self._lock = threading.Lock()
        for file, reason in samples.unreadable:  # one sample each, and without a number
            self.broken.append(Broken(file, 0, 0, reason))
            tell(self.broken[-1].event)
        self._check_limit()

    @property
    def knows_any(self) -> bool:
        """Whether a sample of the set is known to be broken."""
        return bool(self._numbers)

    def read(self, parts: OpenParts, sample: int, views: Mapping[str, Array]) -> int:
        """Read one sample into `views`, or its substitute into their first rows; the number of what was read.

        Raises:
            TooManyBroken: more than `limit` of the set cannot be read.
            DataError: no substitute is short enough.
        """
        if self._try(parts, sample, sample + 1, views):
            return sample
        if not self._replace:
            _clear(views)
            return sample
        for attempt in range(_CANDIDATES):
            other = integer(self._seed, "substitute", sample, attempt) % self._set.drawn
            if self._set.chosen:
                other = int(self._set.chosen.samples[other])
            fitting = self._cut(other, views)
            if other != sample and fitting and self._try(parts, other, other + 1, fitting):
                return other
        raise self.no_substitute(sample)

    def read_block(self, parts: OpenParts, first: int, last: int, views: Mapping[str, Array]) -> None:
        """Read the samples of a block into `views`; when it is broken, `substitutes` says what to take.

        Raises:
            TooManyBroken: more than `limit` of the set cannot be read.
        """
        if not self._try(parts, first, last, views) and not self._replace:
            _clear(views)

    def substitutes(self, step: Step, samples: Ints, visits: Ints) -> tuple[Ints, Ints]:
        """`samples` and their `visits`, with broken ones replaced by the next sound sample of the step.

        Raises:
            DataError: no sample of the step can be read.
        """
        if not self._numbers or not self._replace:
            return samples, visits
        broken = self.is_broken(samples)
        if not broken.any():
            return samples, visits
        sound = np.flatnonzero(~self.is_broken(step.all_samples))
        if not len(sound):
            raise self.no_substitute(int(samples[0]))
        samples, visits = samples.copy(), visits.copy()
        for k in np.flatnonzero(broken):
            at = int(np.flatnonzero(step.all_samples == samples[k])[0])
            other = sound[np.searchsorted(sound, at) % len(sound)]
            samples[k], visits[k] = step.all_samples[other], step.all_visits[other]
        return samples, visits

    def no_substitute(self, sample: int) -> DataError:
        """The error for a sample that nothing can stand in for."""
        file, _within = self._set.where(sample)
        return DataError(
            _("Sample {sample} in {file} cannot be read, and no other can stand in for it.").format(
                sample=sample, file=self._set.columns.names[file]
            ),
            _("Mend or remove the file."),
        )

    def nothing_left(self) -> UnreadableFile:
        """The error for a set of which nothing can be read."""
        one = self.broken[0]
        return UnreadableFile(
            _("Nothing of {path} can be read: {reason}").format(path=self._set.root, reason=one.reason),
            _("Mend the files."),
            path=one.file,
        )

    def is_broken(self, samples: Ints) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which of some samples are known to be broken."""
        with self._lock:
            return np.isin(samples, np.fromiter(self._numbers, np.int64, len(self._numbers)))

    def _cut(self, sample: int, views: Mapping[str, Array]) -> dict[str, Array]:
        """The parts of `views` that `sample` would fill; nothing if one is too small."""
        cut = {}
        for one in self._set.stored:
            view = views[one.name]
            if one.ragged:
                rows = int(self._set.rows(one.name, np.array([sample]))[0])
                if rows > len(view):
                    return {}
                view = view[:rows]
            cut[one.name] = view
        return cut

    def _try(self, parts: OpenParts, first: int, last: int, views: Mapping[str, Array]) -> bool:
        with self._lock:
            if first in self._numbers:
                return False
        for attempt in range(_TRIES):
            try:
                parts.read(first, last, views)
                return True
            except UnreadableFile as error:
                parts.forget(first)  # the next try opens the file anew
                if attempt == _TRIES - 1:
                    self._put_away(first, last, error)
        return False

    def _put_away(self, first: int, last: int, error: UnreadableFile) -> None:
        file, _within = self._set.where(first)
        one = Broken(self._set.columns.names[file], first, last, error.message)
        with self._lock:
            if first in self._numbers:
                return
            self._numbers.update(range(first, last))
            self.broken.append(one)
        self._set.broken.note(one)
        self._tell(one.event)
        self._check_limit()

    def _check_limit(self) -> None:
        with self._lock:
            count, total = (len(kind) + len(self._set.unreadable) for kind in (self._numbers, self._set))
            last = self.broken[-1] if self.broken else None
        if last is not None and count > max(1, self._limit * total):
            raise TooManyBroken(
                _("{count} of {total} samples cannot be read, the last in {file}: {reason}").format(
                    count=count, total=total, file=last.file, reason=last.reason
                ),
                _(
                    "Mend the files or take them out; a stream allows more with broken_limit (now {limit})."
                ).format(limit=self._limit),
                count=count,
                path=last.file,
            )


def _clear(views: Mapping[str, Array]) -> None:
    for view in views.values():
        view[...] = 0
