"""What every test may ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data: `CAUDAL_TEST_DATA`, else `../shared/data` beside the repository."""
    default = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
    path = Path(os.environ.get("CAUDAL_TEST_DATA", default)).resolve()
    if not path.is_dir():
        reason = f"no real data at {path}; set CAUDAL_TEST_DATA"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path
