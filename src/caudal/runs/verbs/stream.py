"""`stream`: the data pipeline alone, for anyone's training loop."""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from caudal.core.errors import UsageError
from caudal.core.events import Sink
from caudal.core.messages import _
from caudal.core.units import MIB, Bytes
from caudal.data.batches import Batch
from caudal.data.broken import Broken
from caudal.data.graphs import EDGES, NODES
from caudal.data.passes import Pass
from caudal.data.quarantine import DEFAULT_LIMIT, Quarantine
from caudal.data.sample_set import SampleSet
from caudal.data.sample_stream import Meter
from caudal.data.steps import Cut, Rank
from caudal.data.transform.function import Function
from caudal.runs.feed import Feed, SampleFeed, StreamPlan
from caudal.runs.machine import processors, ram_budget, settle
from caudal.runs.samples import Arrangement, open_set
from caudal.runs.transform_feed import TransformFeed, Where

DEFAULT_RAM = Bytes(512 * MIB)

_RUNNING: weakref.WeakSet[Pass] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Close what a program left open while its threads still live: later, closing would wait for ever."""
    for running in list(_RUNNING):
        running.close()


class Stream(IterableDataset[Batch]):
    """Batches of a set of samples; see `stream`. Each `for` loop goes on with the next epochs."""

    def __init__(self, feed: Feed, epochs: int, headspace: bool) -> None:
        self._feed, self._epochs, self._headspace = feed, epochs, headspace
        self._epoch = self._position = 0
        self._running: Pass | None = None
        self._meter = Meter()

    @property
    def plan(self) -> StreamPlan:
        """What it holds and delivers."""
        return self._feed.plan()

    def __len__(self) -> int:
        """Batches of one `for` loop from its beginning."""
        return self._feed.batches(self._epochs)

    def __iter__(self) -> Iterator[Batch]:
        if get_worker_info() is not None:
            raise UsageError(
                _("A stream of Caudal reads with threads of its own, and cannot run in worker processes."),
                _("Use it with num_workers=0 and batch_size=None, or without a DataLoader."),
            )
        self.close()
        if self._position >= self._feed.samples_per_epoch:  # the last loop ended right after an epoch
            self._epoch, self._position = self._epoch + 1, 0
        until = (self._epoch // self._epochs + 1) * self._epochs
        self._running = running = self._feed.run(self._epoch, self._position, until)
        _RUNNING.add(running)
        try:
            for batch in self._same(running) if self._headspace else running:
                # Before it is handed out: a state saved while it is used counts it as used.
                self._epoch, self._position = running.epoch, running.position
                yield batch
            self._epoch, self._position = until, 0
        finally:
            self._meter = running.meter
            running.close()

    def _same(self, running: Pass) -> Iterator[Batch]:
        """The first batch, as often as there would be batches: what a loop costs when data cost nothing."""
        first = next(iter(running), None)
        for _number in range(len(self) if first else 0):
            assert first is not None
            yield first

    def stats(self) -> Mapping[str, Any]:
        """Seconds, samples and bytes of the `for` loop that runs, or of the last one; see `Meter`."""
        meter = self._running.meter if self._running else self._meter
        return {**asdict(meter), "arena_bytes": int(self.plan.arena_bytes)}

    @property
    def broken(self) -> list[Broken]:
        """Samples that could not be read so far, and why."""
        return self._feed.broken

    def state_dict(self) -> dict[str, Any]:
        """Where the next batch begins: a few numbers, the same for any number of threads and ranks."""
        return {
            "set": self._feed.digest,
            "seed": self._feed.seed,
            "epoch": self._epoch,
            "position": self._position,
            "open_blocks": self._feed.open_blocks,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another stream over the same set stopped.

        Raises:
            UsageError: the state is of another set or seed.
            DoesNotFit: the blocks that were open then do not fit into the budget now.
        """
        if state.get("set") != self._feed.digest or state.get("seed") != self._feed.seed:
            raise UsageError(
                _("This state belongs to a stream over other data or with another seed."),
                _("Make the stream as it was made then; threads, ranks and ram may differ."),
            )
        self._feed.fit(int(state["open_blocks"]))
        self._epoch, self._position = int(state["epoch"]), int(state["position"])

    def close(self) -> None:
        """Stop reading and give the memory back; a `for` loop that ends does so by itself."""
        if self._running is not None:
            self._running.close()
            self._running = None

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def stream(
    data: str | Path,
    batch_size: int = 32,
    *,
    ram: str | int | None = None,
    shuffle: bool | float | str = True,
    seed: int = 0,
    epochs: int = 1,
    threads: int | None = None,
    samples: Arrangement = "auto",
    patch_px: int | None = None,
    masks: str | Path | None = None,
    resize: tuple[int, int] | None = None,
    scaled: bool = False,
    antialias: bool = True,
    node_budget: int | None = None,
    join_graphs: bool = False,
    transform: Function | None = None,
    transform_in: Where = "auto",
    drop_last: bool = False,
    rank: int | None = None,
    world_size: int | None = None,
    broken_limit: float = DEFAULT_LIMIT,
    headspace: bool = False,
    debug: bool = False,
    events: Sink = lambda _event: None,
) -> Stream:
    """Batches of the samples in a folder or a file, read ahead inside `ram` bytes.

    `data` may hold tensors (.safetensors .npz .npy .pt), tables (.parquet .csv), graphs (.jsonl, TU),
    pictures (.jpg .png; field `label` from their folders) or a pack. `samples` says whether a file of arrays
    is one sample (`file`) or many (`rows`). With `patch_px`, `data` are rasters, and samples are patches of
    that side (field `image`, (B, P, P, bands)). `masks` is then a folder of masks with the images' names, or
    the data folder itself where it holds `images` with `masks` beside it; field `mask` (B, P, P) has class
    numbers (uint8), found as training finds them: `plan.notes` says which, 255 is left out.
    `shuffle` may be a number: the effective batch wanted, as a share of `batch_size`. `resize` (height,
    width) in pixels; `scaled` lets the JPEG decoder shrink; without `antialias` the rest is one bilinear
    step. `node_budget` is the most rows of `x` in a batch. `join_graphs` makes one graph of the graphs of a
    batch: `edge_index`, `batch` and `ptr` beside `x`, as torch_geometric takes them, instead of `edges`.
    `transform` is a function that takes a sample (a dict of arrays) and, if it has a second argument, a numpy
    Generator, and gives the sample to be delivered; where it runs follows from a short trial, or from
    `transform_in` (`threads`, `process`). `rank`, `world_size`: from torch.distributed where it runs;
    `batch_size` is that of all ranks together. `broken_limit` is the share of samples that may be unreadable;
    of patches, in each epoch.
    `headspace` delivers one batch again and again, to see what the loop costs without data. `debug` finds
    views that are used after their batch. `events` hears of broken samples.

    Raises:
        UnreadableFile: nothing to read, or a broken header.
        DataError: files that do not belong together; `BadPair`, `BadValues`: masks that are none.
        TooManyBroken: more headers than `broken_limit` are broken; while it runs, more samples.
        DoesNotFit: `ram` is too small for one sample, or for the shuffle that was asked for.
        UsageError: a wrong argument.
    """
    settle()
    if batch_size < 1 or epochs < 1:
        raise UsageError(_("batch_size and epochs are at least 1."), _("Give larger ones."))
    if masks is not None and patch_px is None:
        raise UsageError(_("Masks belong to patches."), _("Give the patches' side in pixels with patch_px."))
    if patch_px is not None and patch_px < 1:
        raise UsageError(_("patch_px is at least 1."), _("Give a larger one."))
    workers = processors() if threads is None else max(1, threads)
    budget = ram_budget(Bytes.parse(ram)) if ram is not None else min(DEFAULT_RAM, ram_budget(None))
    where = _rank(rank, world_size)
    if patch_px is not None:
        from caudal.runs.patch_feed import PatchFeed
        from caudal.runs.patch_set import open_patches

        _only_of_samples(
            samples=samples != "auto",
            shuffle=shuffle is not True,
            drop_last=drop_last,
            resize=resize is not None,
            scaled=scaled,
            antialias=not antialias,
            node_budget=node_budget is not None,
            join_graphs=join_graphs,
            debug=debug,
        )
        rasters = open_patches(data, masks, workers, budget)
        feed: Feed = PatchFeed(
            rasters, patch_px, batch_size, budget, seed, workers, where, broken_limit, events
        )
        if transform is not None:
            feed = TransformFeed(feed, transform, transform_in, budget, batch_size, workers)
        return Stream(feed, epochs, headspace)
    size = (int(resize[0]), int(resize[1])) if resize is not None else None
    found = open_set(str(data), samples, size, scaled, workers, antialias=antialias, tolerant=True)
    if node_budget is not None and not any(one.name == "x" and one.ragged for one in found.fields):
        raise UsageError(
            _("node_budget counts rows of the field “x”, and these samples have none that is ragged."),
            _("Leave it out, and use batch_size."),
        )
    if join_graphs:
        found = _joined(found, transform)
    feed = SampleFeed(
        found,
        Cut(batch_size, "x" if node_budget else "", node_budget or 0, drop_last),
        budget,
        float(shuffle) if isinstance(shuffle, str) else shuffle,
        seed,
        workers,
        where,
        Quarantine(found, seed, broken_limit, events),
        debug,
    )
    if transform is not None:
        feed = TransformFeed(feed, transform, transform_in, budget, batch_size, workers)
    return Stream(feed, epochs, headspace)


def _only_of_samples(**given: bool) -> None:
    """Refuse arguments that would change nothing, rather than pass over them."""
    names = [name for name, there in given.items() if there]
    if names:
        raise UsageError(
            _(
                "{names} cannot be used with patch_px: patches are always mixed, whole and in full batches."
            ).format(names=", ".join(names)),
            _("Leave it out; a transform may change patches on their way."),
        )


def _joined(samples: SampleSet, transform: Function | None) -> SampleSet:
    ragged = {one.name: one.row_shape for one in samples.fields if one.ragged}
    if NODES not in ragged or ragged.get(EDGES) != (2,):
        raise UsageError(
            _("join_graphs needs the ragged fields “x” and “edges” (pairs of nodes), which these lack."),
            _("Leave it out, or rename the fields."),
        )
    if transform is not None:
        raise UsageError(
            _("A transform sees samples one by one, and join_graphs leaves none."),
            _("Leave join_graphs out, and join what comes out of the transform."),
        )
    return replace(samples, joined=True)


def _rank(rank: int | None, world_size: int | None) -> Rank:
    if rank is not None or world_size is not None:
        number, world = rank or 0, world_size or 1
        if not 0 <= number < world:
            raise UsageError(
                _("rank {rank} is not one of {world} ranks.").format(rank=number, world=world),
                _("Ranks count from 0."),
            )
        return Rank(number, world)
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        return Rank(dist.get_rank(), dist.get_world_size())
    return Rank()
