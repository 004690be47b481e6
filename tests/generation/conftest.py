"""A tiny model, a face and a loaded session, made once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("diffusers")

from tests.generation import tiny


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of random weights."""
    return tiny.write_model(tmp_path_factory.mktemp("generation") / "model")


@pytest.fixture(scope="session")
def face(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture with one face that the stand-in engine finds."""
    return tiny.save_picture(tmp_path_factory.mktemp("faces") / "one.png", tiny.portrait())


@pytest.fixture(scope="session")
def two_faces() -> np.ndarray:
    """Numbers of two faces."""
    return np.random.default_rng(3).standard_normal((2, tiny.EMBEDDING)).astype(np.float32)


@pytest.fixture(autouse=True, scope="module")
def _closed() -> Iterator[None]:
    """Sessions that tests share are closed with their file."""
    yield
    from tests.generation.sitting import close_all

    close_all()
