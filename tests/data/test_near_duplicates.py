"""Copies are found whatever was done to them, and pictures that are merely alike are not taken for copies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from caudal.data import index_cache
from caudal.data.glance import glance
from caudal.data.near_duplicates import near_duplicates, together
from caudal.runs.samples import open_set


def scene(draw: np.random.Generator, side: int = 96) -> Image.Image:
    """Smooth blots on a ground: no two alike."""
    small = draw.integers(30, 220, (6, 6, 3)).astype(np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    draw = np.random.default_rng(0)
    root = tmp_path / "pictures"
    root.mkdir()
    for k in range(30):
        picture = scene(draw)
        picture.save(root / f"{k:02d}.png")
        if k == 3:  # saved anew, smaller and darker
            picture.resize((61, 70)).point(lambda v: int(0.8 * v)).save(root / "copy3.jpg", quality=70)
        if k == 7:
            picture.save(root / "copy7.png")
    Image.new("RGB", (40, 40), (90, 90, 90)).save(root / "flat1.png")
    Image.new("RGB", (40, 40), (90, 90, 90)).save(root / "flat2.png")
    (root / "zz.jpg").write_bytes(b"\xff\xd8\xff nothing")
    return root


def names_of(root: Path) -> tuple[list[set[str]], object]:
    samples = open_set(str(root), resize=(16, 16), scaled=True, tolerant=True)
    seen = glance(samples, "image", np.arange(len(samples)), 2)
    assert seen is not None
    names = [Path(samples.columns.names[k]).stem for k in seen.numbers.tolist()]
    return [{names[a], names[b]} for a, b in near_duplicates(seen.grey).tolist()], seen


def test_copies_are_found_and_nothing_else_is(folder: Path) -> None:
    pairs, seen = names_of(folder)
    assert sorted(map(sorted, pairs)) == [["03", "copy3"], ["07", "copy7"]]
    assert seen.complete


def test_what_was_seen_is_kept_until_a_file_changes(folder: Path) -> None:
    before = names_of(folder)[0]
    (kept,) = index_cache.cache_folder().glob("*.glance.npz")
    written = kept.stat().st_mtime_ns
    assert names_of(folder)[0] == before
    assert kept.stat().st_mtime_ns == written
    (folder / "copy7.png").write_bytes((folder / "08.png").read_bytes())
    assert {"08", "copy7"} in names_of(folder)[0]


def test_a_broken_cache_is_made_anew(folder: Path) -> None:
    before = names_of(folder)[0]
    (kept,) = index_cache.cache_folder().glob("*.glance.npz")
    kept.write_bytes(b"PK broken")
    assert names_of(folder)[0] == before


def test_parts_on_a_bench_are_not_copies_of_each_other() -> None:
    draw = np.random.default_rng(1)
    part = draw.normal(0, 1, 256)
    grey = part + draw.normal(0, 0.02, (200, 256))
    grey[7] = grey[90] + draw.normal(0, 1e-4, 256)
    grey -= grey.mean(1, keepdims=True)
    grey /= np.linalg.norm(grey, axis=1, keepdims=True)
    assert near_duplicates(grey.astype(np.float32)).tolist() == [[7, 90]]


@pytest.mark.parametrize("count", [0, 1])
def test_none_and_one_are_no_pair(count: int) -> None:
    assert near_duplicates(np.ones((count, 256), np.float32)).shape == (0, 2)


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=30),
    st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=20),
)
def test_groups_that_a_pair_joins_become_one_and_no_others_do(
    groups: list[int], wanted: list[tuple[int, int]]
) -> None:
    count = len(groups)
    pairs = [(a, b) for a, b in wanted if a < count and b < count]
    found = together(np.array(groups), np.array(pairs, np.int64).reshape(-1, 2), count)
    expected = np.array(groups)
    for _pass in range(count + len(pairs)):
        for a, b in [*pairs, *((i, j) for i in range(count) for j in range(count) if groups[i] == groups[j])]:
            low = min(expected[a], expected[b])
            expected[a] = expected[b] = low
    for i in range(count):
        for j in range(count):
            assert (found[i] == found[j]) == (expected[i] == expected[j])


def test_arrays_are_looked_at_too(tmp_path: Path) -> None:
    draw = np.random.default_rng(2)
    x = np.stack([np.asarray(scene(draw, 40)) for _k in range(24)]).astype(np.float32)
    x[5] = 0.5 * x[9]
    x[3, :5, :5] = np.nan
    np.savez(tmp_path / "a.npz", image=x, label=np.arange(24) % 2)
    samples = open_set(str(tmp_path), "rows")
    seen = glance(samples, "image", np.arange(24), 2)
    assert seen is not None
    assert near_duplicates(seen.grey).tolist() == [[5, 9]]
    assert np.isfinite(seen.border).all()
    assert np.isfinite(seen.cast).all()
