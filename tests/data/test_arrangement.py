"""Whether a file is one sample or many: what the file itself says goes before any guess."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from caudal.data.sample_index import index_samples

ROWS = {"x": np.arange(12, dtype=np.float32).reshape(6, 2), "y": np.arange(3)}
ENDS = {"x.ends": np.array([1, 4, 6])}


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("files", [1, 2])
def test_a_file_with_ends_holds_as_many_samples_as_it_has_ends(
    suffix: str, files: int, tmp_path: Path
) -> None:
    for k in range(files):
        path = tmp_path / f"{k}{suffix}"
        np.savez(path, **ROWS, **ENDS) if suffix == ".npz" else save_file({**ROWS, **ENDS}, path)
    found = index_samples(str(tmp_path))
    assert len(found) == 3 * files
    assert not found.whole
    assert {one.name: one.shape for one in found.fields} == {"x": (None, 2), "y": ()}
    assert found.rows("x", np.arange(3)).tolist() == [1, 3, 2]


def test_without_ends_arrays_beside_a_number_are_one_sample(tmp_path: Path) -> None:
    for k in range(2):
        np.savez(tmp_path / f"{k}.npz", x=ROWS["x"], y=np.array(k))
    found = index_samples(str(tmp_path))
    assert (len(found), found.whole) == (2, True)
