"""Of chosen samples a stream draws all of them, and no other, each epoch once, in an order of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caudal.core.units import MIB, Bytes
from caudal.data.quarantine import Quarantine
from caudal.data.sample_index import index_samples
from caudal.data.steps import Cut, Rank
from caudal.runs.feed import SampleFeed

COUNT = 3000
WIDTHS = {"direct": 5000, "blocks": 12}


@pytest.fixture(scope="module", params=["direct", "blocks", "table"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp(request.param)
    if request.param == "table":
        text = "\n".join(f"{k},{k * 2}" for k in range(COUNT))
        (root / "a.csv").write_text("k,twice\n" + text + "\n")
        return root
    width = WIDTHS[request.param]
    for part, ks in enumerate(np.array_split(np.arange(COUNT if width < 100 else 60), 3)):
        rows = np.repeat(ks[:, None], width, 1).astype(np.int64)
        np.savez(root / f"{part}.npz", k=ks, rows=rows)
    return root


def numbers(root: Path, chosen: np.ndarray, *, seed: int, shuffle: bool, start: int = 0) -> list[int]:
    samples = index_samples(str(root)).only(chosen)
    feed = SampleFeed(
        samples, Cut(7), Bytes(32 * MIB), shuffle, seed, 2, Rank(), Quarantine(samples, seed), debug=False
    )
    running = feed.run(0, start, 1)
    try:
        found = []
        for batch in running:
            assert (batch.numpy("k") == batch.samples).all()
            found += batch.samples.tolist()
        return found
    finally:
        running.close()


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_all_that_were_chosen_come_once_and_nothing_else(folder: Path, data: st.DataObject) -> None:
    total = len(index_samples(str(folder)))
    share = data.draw(st.sampled_from([0.01, 0.2, 0.8, 1.0]))
    draw = np.random.default_rng(data.draw(st.integers(0, 99)))
    chosen = np.sort(draw.permutation(total)[: max(1, int(share * total))])
    seed = data.draw(st.integers(0, 5))
    mixed = numbers(folder, chosen, seed=seed, shuffle=True)
    assert sorted(mixed) == chosen.tolist()
    assert numbers(folder, chosen, seed=seed, shuffle=False) == chosen.tolist()
    start = 7 * (len(chosen) // 14)
    if start:
        assert numbers(folder, chosen, seed=seed, shuffle=True, start=start) == mixed[start:]


def test_one_that_is_broken_is_replaced_by_another_chosen_one(tmp_path: Path) -> None:
    for k in range(12):
        noise = np.random.default_rng(k).normal(size=(1, 9000))
        np.savez_compressed(tmp_path / f"{k:02d}.npz", k=np.array([k]), x=noise)
    samples = index_samples(str(tmp_path), "rows").only(np.array([1, 4, 9]))
    path = tmp_path / "04.npz"
    data = bytearray(path.read_bytes())
    data[40_000:41_000] = bytes(1000)
    path.write_bytes(data)
    feed = SampleFeed(
        samples, Cut(3), Bytes(32 * MIB), True, 0, 2, Rank(), Quarantine(samples, 0, 0.5), debug=False
    )
    running = feed.run(0, 0, 1)
    found = {int(k) for batch in running for k in batch.numpy("k").reshape(-1)}
    running.close()
    assert found == {1, 9}
