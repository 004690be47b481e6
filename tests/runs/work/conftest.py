"""What runs do with their data is not how a probe is started."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="module")
def _warm(warm: None) -> None:
    """Measurements come from a process that is there already."""
