"""What tests of patches share: a set of scenes, cut into small chunks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.patches.patch_sets import make_set


@pytest.fixture(scope="package")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only: whoever breaks a file copies the set first."""
    return make_set(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of a few blocks, so that images have several and the grid moves."""
    monkeypatch.setattr("caudal.data.chunks.CHUNK_BYTES", 128 * 128 * 8)
