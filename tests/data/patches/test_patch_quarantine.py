"""Broken rasters: listed, counted, and replaced by the same patches in any run."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

import caudal
from caudal.core.errors import DataError, TooManyBroken, UnreadableFile
from caudal.core.events import Event, SampleBroken
from caudal.core.geometry import Window
from caudal.core.units import MIB, Bytes
from caudal.data.chunk_reader import ChunkReader, OpenFiles
from caudal.data.chunks import Cutter
from caudal.data.classes import Classes
from caudal.data.index import build
from caudal.data.patch_quarantine import PatchQuarantine
from caudal.data.readers.base import Pixels
from caudal.data.steps import Rank
from caudal.data.visits import Visits
from caudal.runs.patch_set import open_patches
from tests.data.patches.patch_sets import (
    DRAWS,
    PATCH,
    break_tile,
    delivered,
    made,
    make_set,
    merged,
    places,
)


@pytest.fixture
def broken_scenes(scenes: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "broken"
    shutil.copytree(scenes, folder)
    break_tile(folder / "images" / "0.tif", 3)
    return folder


def test_broken_chunks_are_replaced_by_patches_of_sound_ones_in_every_epoch(broken_scenes: Path) -> None:
    heard: list[Event] = []
    stream = made(broken_scenes, epochs=3, events=heard.append)
    tile = Window(64, 0, 64, 64)  # the fourth of three a row
    found = places(stream)
    assert len(found) == len(stream) * 6 >= 3 * stream.plan.samples - 5
    assert all(
        number or not tile.intersect(Window(row, col, PATCH, PATCH)).area_px for number, row, col in found
    )
    assert stream.broken
    assert len(set(stream.broken)) == len(stream.broken)
    per_image = Cutter(build([(broken_scenes / "images" / "0.tif", None)]), (0,), PATCH, 4).patches_of(0)
    for one in stream.broken:
        assert one.file == str(broken_scenes / "images" / "0.tif")
        assert 0 <= one.first < one.last <= per_image
        assert "is broken" in one.reason
    assert [(e.file, e.first, e.first + e.count, e.reason) for e in heard if isinstance(e, SampleBroken)] == [
        (b.file, b.first, b.last, b.reason) for b in stream.broken
    ]


@DRAWS
@given(st.data())
def test_substitutes_are_the_same_in_any_run(broken_scenes: Path, data: st.DataObject) -> None:
    whole = delivered(made(broken_scenes, epochs=2, threads=1))
    stop, world = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(1, 3))
    with made(broken_scenes, epochs=2, threads=data.draw(st.integers(1, 4))) as stream:
        assert delivered(stream, stop) == whole[:stop]
        state = stream.state_dict()
    tails = []
    for rank in range(world):
        threads = data.draw(st.integers(1, 4))
        resumed = made(broken_scenes, epochs=2, rank=rank, world_size=world, threads=threads)
        resumed.load_state_dict(state)
        tails.append(delivered(resumed))
    assert merged(tails) == whole[stop:]


def test_sound_samples_are_not_changed_by_broken_ones(scenes: Path, broken_scenes: Path) -> None:
    sound, replaced = delivered(made(scenes)), delivered(made(broken_scenes))
    flat = [(a, b) for one, two in zip(sound, replaced, strict=True) for a, b in zip(one, two, strict=True)]
    others = {two for one, two in flat if one != two}
    assert 0 < len(others) <= made(scenes).plan.samples * 0.3
    assert len(others - {one for one, _two in flat}) > len(others) / 2  # not what is delivered anyhow


def test_more_broken_patches_than_allowed_stop_the_run(broken_scenes: Path) -> None:
    with pytest.raises(TooManyBroken, match=r"samples cannot be read, the last in .*0\.tif"):
        delivered(made(broken_scenes, broken_limit=0.01))


def test_a_set_in_which_nothing_can_be_read_is_an_error_even_if_all_may_be_broken(tmp_path: Path) -> None:
    folder = make_set(tmp_path, [(64, 64)] * 2)
    for number in range(2):
        break_tile(folder / "images" / f"{number}.tif", 0)
    with pytest.raises(DataError, match="no other can stand in"):
        delivered(made(folder, 2, masks=None, broken_limit=1.0))


def test_a_mask_that_is_broken_takes_its_chunk_along(scenes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    shutil.copytree(scenes, folder)
    with tifffile.TiffFile(folder / "masks" / "0.tif") as file:
        offset, size = file.pages[0].dataoffsets[3], file.pages[0].databytecounts[3]
    with (folder / "masks" / "0.tif").open("r+b") as raw:
        raw.seek(offset)
        raw.write(b"\xff" * size)
    stream = made(folder)
    assert places(stream)
    assert {one.file for one in stream.broken} == {str(folder / "masks" / "0.tif")}
    assert not made(folder, masks=None).broken


def test_a_chunk_that_can_be_read_at_the_second_try_is_not_broken(scenes: Path) -> None:
    class Flaky(OpenFiles):
        def __init__(self) -> None:
            super().__init__()
            self.failed: set[Any] = set()
            self.lock = threading.Lock()

        def read(self, path: Any, window: Window) -> Pixels:
            with self.lock:
                known = path in self.failed
                self.failed.add(path)
            if not known:
                raise UnreadableFile("away", path=str(path))
            return super().read(path, window)

    index = open_patches(scenes / "images", None, 1, Bytes(MIB)).index
    cutter = Cutter(index, tuple(range(len(index))), PATCH, 0)
    quarantine = PatchQuarantine(cutter, 0.0)
    reader = ChunkReader(index, Classes(values=(0,)), np.zeros((1, 4), np.float32), Flaky())
    for visit in Visits(cutter, 2, 4, Rank()).between(0, 4):
        piece = quarantine.read(reader, visit)
        assert int(piece.chunk.x_HWC[0, 0, 2]) == piece.image == visit.image
    assert reader.files.failed  # type: ignore[attr-defined]
    assert not quarantine.broken


def test_a_file_without_a_readable_header_is_left_out_listed_and_counted(
    scenes: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "set"
    shutil.copytree(scenes, folder)
    image = folder / "images" / "1.tif"
    image.write_bytes(image.read_bytes()[:300])
    heard: list[Event] = []
    stream = made(folder, broken_limit=0.01, events=heard.append)
    assert {number for number, _row, _col in places(stream)} == {0, 2, 3, 4, 5}
    assert [(one.file, one.first, one.last) for one in stream.broken] == [(str(image), 0, 0)]
    assert [type(event) for event in heard] == [SampleBroken]
    mask = folder / "masks" / "3.tif"
    mask.write_bytes(b"")
    with pytest.raises(TooManyBroken, match=r"2 of 6 files cannot be read, the last is .*masks/3\.tif"):
        made(folder, broken_limit=0.01)
    assert {one.file for one in made(folder, broken_limit=0.5).broken} == {str(image), str(mask)}


def test_a_set_without_one_readable_header_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"no raster")
    with pytest.raises(UnreadableFile, match=r"a\.tif"):
        caudal.stream(tmp_path, 1, patch_px=8, broken_limit=1.0)
