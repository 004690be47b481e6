"""Arrays that are named for parts of a split are one set, which says of which part each sample is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import caudal
from caudal.core.errors import DataError
from caudal.data.sample_index import index_samples


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("width", [3, 9000])
def test_every_sample_comes_with_its_own_values_and_its_part(
    tmp_path: Path, save: object, width: int
) -> None:
    assert callable(save)
    draw = np.random.default_rng(0)
    arrays, counts = {}, {"train": 30, "val": 5, "test": 12}
    for part, count in counts.items():
        arrays[f"X_{part}"] = draw.normal(size=(count, width)).astype(np.float32)
        arrays[f"y_{part}"] = draw.integers(0, 9, count)
    save(tmp_path / "a.npz", **arrays)
    found = index_samples(str(tmp_path))
    assert [one.name for one in found.fields] == ["X", "y", "split"]
    assert found.fields[2].categories == ("test", "train", "val")
    assert np.bincount(found.columns.extra["split"]).tolist() == [12, 30, 5]
    x = np.concatenate([arrays[f"X_{part}"] for part in counts])
    y = np.concatenate([arrays[f"y_{part}"] for part in counts])
    seen = []
    for batch in caudal.stream(tmp_path, 8, ram="64MiB"):
        assert (batch["X"].numpy() == x[batch.samples]).all()
        assert (batch["y"].numpy() == y[batch.samples]).all()
        seen += batch.samples.tolist()
    assert sorted(seen) == list(range(47))


def test_names_of_one_part_alone_are_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X_train=np.zeros((5, 2)), y_train=np.zeros(5))
    assert {one.name for one in index_samples(str(tmp_path)).fields} >= {"X_train", "y_train"}


def test_parts_whose_arrays_differ_are_refused(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "a.npz",
        X_train=np.zeros((5, 2)),
        y_train=np.zeros(5),
        X_test=np.zeros((5, 3)),
        y_test=np.zeros(5),
    )
    with pytest.raises(DataError, match="train and test hold different fields"):
        index_samples(str(tmp_path), "rows")
