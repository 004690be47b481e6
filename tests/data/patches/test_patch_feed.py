"""Patches from `caudal.stream` are the same for any ranks and threads, and keep to their budget."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import caudal
from caudal.core.errors import UsageError
from caudal.core.geometry import Window
from caudal.core.units import MIB, Bytes
from caudal.data.chunk_reader import OpenFiles
from caudal.data.chunks import Cutter
from caudal.data.index import build
from caudal.data.readers.base import Pixels
from caudal.data.steps import Rank
from caudal.data.stream import StreamSize
from caudal.data.visits import Visits
from caudal.runs.patch_feed import PatchFeed
from caudal.runs.patch_set import open_patches
from tests.data.patches.patch_sets import (
    DRAWS,
    PATCH,
    delivered,
    made,
    make_set,
    merged,
)
from tests.data.sets import write_tiff


@DRAWS
@given(st.data())
def test_ranks_threads_and_resumes_do_not_change_the_sequence(scenes: Path, data: st.DataObject) -> None:
    batch = data.draw(st.integers(3, 14))
    options = {"batch": batch, "epochs": 2, "ram": data.draw(st.sampled_from(["6MiB", "24MiB"]))}
    whole = delivered(made(scenes, threads=2, **options))
    assert [number for part in whole for number, _bytes in part] == list(range(len(whole) * batch))
    stop = data.draw(st.integers(0, len(whole) - 1))
    first_world, world = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    heads, states = [], []
    for rank in range(first_world):
        threads = data.draw(st.integers(1, 4))
        with made(scenes, rank=rank, world_size=first_world, threads=threads, **options) as stream:
            heads.append(delivered(stream, stop))
            states.append(json.dumps(stream.state_dict()))
    assert len(set(states)) == 1
    tails = []
    for rank in range(world):
        resumed = made(scenes, rank=rank, world_size=world, threads=data.draw(st.integers(1, 4)), **options)
        resumed.load_state_dict(json.loads(states[0]))
        tails.append(delivered(resumed))
    assert merged(heads) + merged(tails) == whole


def test_ranks_and_threads_do_not_change_what_the_budget_lets_be_open(scenes: Path) -> None:
    plans = [
        made(scenes, 30, ram="7MiB", threads=threads, rank=world - 1, world_size=world).plan
        for threads in (1, 2, 16)
        for world in (1, 3)
    ]
    assert len({plan.open_blocks for plan in plans}) == 1
    assert plans[0].open_blocks < made(scenes, 30, ram="64MiB").plan.open_blocks
    assert plans[1].arena_bytes < plans[0].arena_bytes
    assert all(plan.arena_bytes < plan.ram for plan in plans)


@pytest.mark.parametrize("world", [1, 2, 5])
def test_every_rank_has_as_many_batches_and_keeps_to_its_arena(scenes: Path, world: int) -> None:
    rasters = open_patches(scenes, scenes, 2, Bytes(8 * MIB))
    lengths = set()
    for rank in range(world):
        where = Rank(rank, world)
        feed = PatchFeed(rasters, PATCH, 7, Bytes(8 * MIB), 0, 3, where, 0.0, lambda _event: None)
        running = feed.run(0, 0, 3)
        sizes = {batch.size for batch in running}
        running.close()
        assert sizes == {len(range(rank, 7, world))}
        assert running.arena.peak <= feed.plan().arena_bytes <= 8 * MIB
        assert running.meter.batches == feed.batches(3)
        lengths.add(feed.batches(3))
    assert len(lengths) == 1


def test_a_rank_decodes_only_chunks_that_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_set(tmp_path, [(PATCH, PATCH)] * 12)
    opened: list[str] = []
    read = OpenFiles.read

    def counted(files: OpenFiles, path: Any, window: Window) -> Pixels:
        opened.append(path.name)
        return read(files, path, window)

    for rank in range(3):
        stream = made(folder, masks=None, epochs=2, rank=rank, world_size=3)
        with monkeypatch.context() as patch:
            patch.setattr(OpenFiles, "read", counted)
            own = [f"{x[0, 0, 2]}.tif" for batch in stream for x in batch.numpy("image").copy()]
        assert len(own) == 8  # of 12 chunks of one patch, in each of two epochs
        assert sorted(opened) == sorted(own)
        opened.clear()


@DRAWS
@given(
    sizes=st.lists(st.tuples(st.integers(8, 300), st.integers(8, 300)), min_size=1, max_size=6),
    batch=st.integers(1, 40),
    world=st.integers(1, 5),
    open_chunks=st.integers(1, 8),
    seed=st.integers(0, 99),
)
def test_the_slots_of_a_rank_always_suffice_for_its_next_batch(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[tuple[int, int]],
    batch: int,
    world: int,
    open_chunks: int,
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("sizes")
    how: dict[str, Any] = {"tiled": True, "blockxsize": 64, "blockysize": 64}
    paths = [
        write_tiff(folder / f"{k}.tif", np.zeros((*size, 4), np.uint16), **how)
        for k, size in enumerate(sizes)
    ]
    cutter = Cutter(build([(path, None) for path in paths]), tuple(range(len(sizes))), 16, seed)
    slots = StreamSize.of(cutter, batch, open_chunks, world=world).slots
    stop = 2 * cutter.samples // batch
    for rank in range(world if batch >= world else 0):
        waiting: set[int] = set()
        visits = Visits(cutter, open_chunks, batch, Rank(rank, world))
        granted = visits.between(0, stop)
        for number in range(stop):
            needed = set(visits.samples_of(number).tolist())
            while not needed <= waiting:
                waiting |= {int(sample) for sample in next(granted).samples if sample >= 0}
                assert len(waiting) <= slots
            waiting -= needed
        assert not waiting
        assert next(granted, None) is None


@pytest.mark.parametrize(
    "asked", [{"shuffle": False}, {"resize": (8, 8)}, {"debug": True}, {"drop_last": True}]
)
def test_what_patches_do_not_know_is_refused(scenes: Path, asked: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(asked))} cannot be used with patch_px"):
        caudal.stream(scenes, 4, patch_px=32, **asked)


def test_a_batch_that_leaves_a_rank_without_a_patch_is_refused(scenes: Path) -> None:
    made(scenes, 3, rank=2, world_size=3)
    with pytest.raises(UsageError, match="2 patches cannot be dealt out to 3 ranks"):
        made(scenes, 2, rank=0, world_size=3)


@pytest.mark.parametrize("change", [{"batch": 5}, {"patch_px": 16}, {"masks": None}, {"seed": 5}])
def test_a_state_of_another_cut_is_refused(scenes: Path, change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="another seed"):
        made(scenes, **change).load_state_dict(made(scenes).state_dict())


def test_ranks_of_a_real_raster_share_what_one_process_gets(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # chunks as large as they are
    raster = data_dir / "raster" / "s2_20181013_8band_2201x2629.tif"
    how: dict[str, Any] = {"patch_px": 128, "ram": "128MiB"}
    ranks = [caudal.stream(raster, 16, rank=rank, world_size=2, **how) for rank in range(2)]
    whole = caudal.stream(raster, 16, **how)
    assert merged([delivered(one, 6) for one in ranks]) == delivered(whole, 6)
    for one in (whole, *ranks):
        one.close()
