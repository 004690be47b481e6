"""The order is a pure function: each sample once an epoch, whatever is open, wherever it begins."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caudal.data.bands import Layout
from caudal.data.chunks import Cutter
from caudal.data.index import Index, Names
from caudal.data.order import order, origins, permute, slots_needed


def index_of(sizes: list[tuple[int, int]], block: tuple[int, int] = (64, 64)) -> Index:
    count = len(sizes)
    return Index(
        images=Names.pack(f"/{k}.tif" for k in range(count)),
        masks=Names.pack("" for _ in range(count)),
        height=np.array([h for h, _w in sizes]),
        width=np.array([w for _h, w in sizes]),
        block=np.array([block] * count),
        layout=np.zeros(count, np.int64),
        bytes=np.zeros(count, np.int64),
        layouts=(Layout((), np.dtype(np.uint16), tuple(range(64))),),  # wide pixels: many chunks
        band_names=(),
        warnings=(),
    )


SIZES = st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 900)), min_size=1, max_size=6)


@given(st.integers(1, 3000), st.integers(0, 5), st.integers(0, 3))
def test_a_permutation_holds_every_number_once(size: int, seed: int, epoch: int) -> None:
    moved = permute(np.arange(size), size, seed, epoch)
    assert np.array_equal(np.sort(moved), np.arange(size))


@given(SIZES, st.integers(0, 3), st.integers(2, 40))
@settings(deadline=None)
def test_an_epoch_has_each_patch_once_and_always_as_many(
    sizes: list[tuple[int, int]], epoch: int, k: int
) -> None:
    cutter = Cutter(index_of(sizes), tuple(range(len(sizes))), 64, seed=1)
    laid_out = order(cutter, epoch, k)
    assert len(laid_out) == cutter.samples
    pairs = set(zip(laid_out.visit.tolist(), laid_out.patch.tolist(), strict=True))
    assert len(pairs) == cutter.samples
    assert all(patch < laid_out.chunks.patches[visit] for visit, patch in pairs)


@given(SIZES, st.integers(0, 3))
@settings(deadline=None)
def test_chunks_lie_in_their_image_on_whole_blocks_and_hold_their_patches(
    sizes: list[tuple[int, int]], epoch: int
) -> None:
    cutter = Cutter(index_of(sizes), tuple(range(len(sizes))), 64, seed=1)
    laid_out = order(cutter, epoch, 8)
    chunks = laid_out.chunks
    for c in range(len(chunks)):
        height, width = sizes[chunks.image[c]]
        window = chunks.window(c)
        assert window.row >= 0
        assert window.col >= 0
        assert window.row_end <= height
        assert window.col_end <= width
        rows, cols = origins(1, epoch, chunks, c, 64)
        assert (rows >= 0).all()
        assert (cols >= 0).all()
        assert (rows + min(64, window.height) <= window.height).all()
        assert (cols + min(64, window.width) <= window.width).all()


@given(SIZES, st.integers(0, 4), st.integers(2, 30), st.integers(1, 16))
@settings(deadline=None)
def test_the_slots_are_enough_whatever_the_order(
    sizes: list[tuple[int, int]], epoch: int, k: int, batch: int
) -> None:
    cutter = Cutter(index_of(sizes), tuple(range(len(sizes))), 64, seed=2)
    laid_out = order(cutter, epoch, k)
    opened = np.cumsum(laid_out.chunks.patches)
    taken = np.arange(len(laid_out)) // batch * batch  # a batch is given back as a whole
    latest = np.maximum.accumulate(laid_out.visit)
    waiting = opened[latest] - taken
    assert waiting.max() <= slots_needed(cutter.most_patches, k, batch)


def test_another_epoch_moves_the_grid_and_the_order() -> None:
    cutter = Cutter(index_of([(4000, 900)]), (0,), 64, seed=1)
    one, two = order(cutter, 0, 8), order(cutter, 1, 8)
    assert not np.array_equal(one.chunks.row, two.chunks.row)
    again = order(cutter, 0, 8)
    assert np.array_equal(one.visit, again.visit)
    assert np.array_equal(one.chunks.row, again.chunks.row)


def test_batches_are_drawn_across_many_open_chunks() -> None:
    cutter = Cutter(index_of([(300, 300)] * 200), tuple(range(200)), 64, seed=1)
    laid_out = order(cutter, 0, 40)
    middle = laid_out.visit[len(laid_out) // 3 : 2 * len(laid_out) // 3]
    distinct = [len(set(middle[k : k + 16].tolist())) for k in range(0, len(middle) - 16, 16)]
    # 16 draws from 40 equally likely chunks meet 13.3 of them on average.
    assert np.mean(distinct) > 12


def test_border_pixels_are_seen_as_often_as_the_others() -> None:
    cutter = Cutter(index_of([(200, 200)], (200, 200)), (0,), 64, seed=3, density=4000)
    laid_out = order(cutter, 0, 2)
    rows, _cols = origins(3, 0, laid_out.chunks, 0, 64)
    seen = np.zeros(200)
    for row in rows:
        seen[row : row + 64] += 1
    assert seen.min() > 0.2 * seen.mean()


@pytest.mark.parametrize("patch_px", [32, 128])
def test_small_images_make_one_chunk_with_at_least_one_patch(patch_px: int, tmp_path: Path) -> None:
    cutter = Cutter(index_of([(20, 30)]), (0,), patch_px, seed=0)
    assert cutter.samples == 1
    assert cutter.chunk_shape(0) == (20, 30)
