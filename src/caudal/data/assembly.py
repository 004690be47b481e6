"""Puts samples into batches: what a thread of the stream does without holding the stream's lock.

A batch lies in a lease of the ring, field after field. Large samples are read to their place one by one, or
taken as they lie in the page cache; small ones are gathered from cells. When and in which order is the
matter of `sample_stream`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from caudal.core.errors import UnreadableFile
from caudal.data import graphs, mapped
from caudal.data.batches import Batch, Ragged
from caudal.data.cells import Cells
from caudal.data.jobs import Job
from caudal.data.mapped import MappedFiles
from caudal.data.open_parts import OpenParts
from caudal.data.quarantine import Quarantine
from caudal.data.sample_files.base import Array, Ints
from caudal.data.sample_set import SampleSet
from caudal.memory.arena import Arena


class Assembly:
    """Reads the samples of a set into batches. Safe from several threads, each with its own piece."""

    def __init__(self, samples: SampleSet, quarantine: Quarantine, shared: bool = False) -> None:
        """With `shared` every byte lies in the lease, where another process may see it."""
        self._set, self._quarantine = samples, quarantine
        self._parts = OpenParts(samples)
        apart = mapped.pays(samples) and not shared and not samples.joined
        self._mapped = MappedFiles(samples) if apart else None
        self._ragged = [one.name for one in samples.stored if one.ragged]

    def lay_out(self, job: Job, samples: Ints) -> None:
        """The arrays of a job, in its lease."""
        assert job.lease is not None
        arrays, ends, at = {}, {}, 0
        for one in self._set.fields:
            if one.ragged:
                ends[one.name] = np.cumsum(self._set.rows(one.name, samples))
                rows = int(ends[one.name][-1]) if len(samples) else 0
                shape = (rows, *one.row_shape)
            else:
                shape = (len(samples), *one.row_shape)
            arrays[one.name] = job.lease.array(shape, one.dtype, at)
            at += Arena.size_of(arrays[one.name].nbytes) if arrays[one.name].nbytes else 0
        for name, values in self._set.columns.extra.items():
            arrays[name][:] = values[samples]
        job.whole = Batch(arrays, ends, samples.copy(), job.epoch, job.portions[-1].ends)
        job.whole_bytes = at
        if self._mapped and len(samples):
            job.apart = {name: job.whole.set_apart(name) for name in self._ragged}

    def complete(self, job: Job) -> None:
        """Make batches of what is there now."""
        if job.replaced:
            # Substitutes are no longer than what they stand for: the gaps are closed.
            job.made.shorten({name: self._set.rows(name, job.made.samples) for name in self._ragged})
        if self._set.joined:
            job.batches, job.whole = self._joined(job), None
        elif len(job.portions) > 1:
            job.batches = [job.made.part(one.begin, one.end, one.ends) for one in job.portions]
            job.whole = None
        else:
            job.batches = [job.made]

    def _joined(self, job: Job) -> list[Batch]:
        """The batches of a job in which the graphs of each are one."""
        assert job.lease is not None
        found = {name: job.made.numpy(name) for name in job.made}
        values = {name: one.values if isinstance(one, Ragged) else one for name, one in found.items()}
        nodes, edges = found[graphs.NODES].ends, found[graphs.EDGES].ends
        edges_E2 = values.pop(graphs.EDGES)
        edge_index = job.lease.array((2, len(edges_E2)), np.dtype(np.int64), job.whole_bytes)
        at = job.whole_bytes + Arena.size_of(edge_index.nbytes)
        number = job.lease.array((len(values[graphs.NODES]),), np.dtype(np.int64), at)
        ends = np.array([one.end for one in job.portions], np.int64)
        ptrs = graphs.join(edges_E2, nodes, edges, ends, edge_index, number)
        batches = []
        for portion, ptr in zip(job.portions, ptrs, strict=True):
            spans = {
                name: job.made.span(name, portion.begin, portion.end) for name in (*values, graphs.EDGES)
            }
            arrays = {name: value[spans[name]] for name, value in values.items()}
            arrays["edge_index"] = edge_index[:, spans[graphs.EDGES]]
            arrays["batch"], arrays["ptr"] = number[spans[graphs.NODES]], ptr
            samples = job.made.samples[portion.begin : portion.end]
            batches.append(Batch(arrays, {}, samples, job.epoch, portion.ends))
        return batches

    def read(self, job: Job, piece: Ints) -> None:
        """Read the samples at the places `piece` of a batch."""
        if self._set.raw and not self._mapped and not self._quarantine.knows_any:
            piece = piece[self._parts.read_each(job.samples[piece], self._buffers(job, piece))]
        found = [(one.name, one.ragged, job.made.numpy(one.name)) for one in self._set.stored]
        for k in piece.tolist():
            sample = int(job.samples[k])
            if self._mapped and self._take_as_it_lies(job, k):
                continue
            views = {name: array[k] if ragged else array[k : k + 1] for name, ragged, array in found}
            taken = self._quarantine.read(self._parts, sample, views)
            if taken != sample:
                job.made.samples[k], job.replaced = taken, True
                for name, values in self._set.columns.extra.items():
                    job.made.numpy(name)[k] = values[taken]

    def _buffers(self, job: Job, piece: Ints) -> dict[str, list[memoryview]]:
        """The bytes of each sample of a piece in the batch, by field."""
        buffers = {}
        for one in self._set.stored:
            found: Any = job.made.numpy(one.name)
            array = found.values if one.ragged else found
            whole = array.reshape(-1).view(np.uint8).data if array.nbytes else memoryview(bytearray())
            stops = (found.ends[piece] if one.ragged else piece + 1) * one.row_bytes
            sizes = (
                self._set.rows(one.name, job.samples[piece]) * one.row_bytes if one.ragged else one.row_bytes
            )
            spans = zip((stops - sizes).tolist(), stops.tolist(), strict=True)
            buffers[one.name] = [whole[begin:stop] for begin, stop in spans]
        return buffers

    def _take_as_it_lies(self, job: Job, k: int) -> bool:
        """Put the ragged fields of a sample into the batch as they lie in the page cache; false if broken."""
        assert self._mapped
        sample, ragged = int(job.samples[k]), set(self._ragged)
        fixed = {
            one.name: job.made.numpy(one.name)[k : k + 1]
            for one in self._set.stored
            if one.name not in ragged
        }
        rows: dict[str, Array] = {}
        try:
            for one in (one for one in self._set.stored if one.ragged):
                array = self._mapped.sample(one, sample)
                if array is None:
                    return False
                job.lent.append((one, sample))
                rows[one.name] = array
            self._parts.read(sample, sample + 1, fixed)
            self._parts.check(sample, sample + 1, rows)
        except UnreadableFile:
            return False  # then it is read, tried again, and replaced
        for name, array in rows.items():
            job.apart[name][k] = array
        return True

    def take_back(self, job: Job) -> None:
        """Undo what the consumer changed in samples that lie in their files."""
        assert self._mapped
        for one, sample in job.lent:
            self._mapped.clean(one, sample)

    def load(self, cells: Cells, block: int, cell: int) -> None:
        """Read a block into a cell."""
        first, last = self._set.block_begin(block), int(self._set.columns.block_ends[block])
        self._quarantine.read_block(self._parts, first, last, cells.views(cell, block))

    def gather(self, job: Job, cells: Cells, cell_of: dict[int, int], first_visit: int) -> None:
        """Fill a job with samples whose blocks lie in `cell_of[first_visit + visit]`.

        Raises:
            DataError: nothing can stand in for a broken sample.
        """
        samples, visits = job.samples, job.visits
        if self._quarantine.knows_any:
            samples, visits = self._substitutes(job)
        self.lay_out(job, samples)
        where = np.array([cell_of[first_visit + visit] for visit in visits.tolist()], np.int64)
        into = {}
        for one in self._set.stored:
            found: Any = job.made.numpy(one.name)
            into[one.name] = found.values if one.ragged else found
        cells.gather(samples, where, into)

    def _substitutes(self, job: Job) -> tuple[Ints, Ints]:
        samples, visits = job.samples.copy(), job.visits.copy()
        for one in job.portions:
            span = slice(one.begin, one.end)
            samples[span], visits[span] = self._quarantine.substitutes(one.step, samples[span], visits[span])
        changed = (samples != job.samples).any()
        if changed and int(self._set.sample_bytes(samples).sum()) > job.nbytes:
            raise self._quarantine.no_substitute(int(job.samples[0]))
        return samples, visits

    def close(self) -> None:
        """Close every file."""
        self._parts.close()
        if self._mapped:
            self._mapped.close()
