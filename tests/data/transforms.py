"""Functions that a spawned process can import."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np


def halved(sample: Mapping[str, Any]) -> dict[str, Any]:
    """Fewer features, another dtype, one field more; rows are kept."""
    return {"x": sample["x"][..., ::2].astype(np.float64) / 2, "sum": np.float32(sample["x"].sum())}


def cropped(sample: Mapping[str, Any]) -> dict[str, Any]:
    """A ragged sample becomes one of a fixed shape."""
    return {"x": sample["x"][:100], "y": sample["y"]}


def noisy(sample: Mapping[str, Any], random: np.random.Generator) -> dict[str, Any]:
    """Random numbers for each sample."""
    return {"x": sample["x"] + random.normal(size=sample["x"].shape).astype(np.float32)}


def stubborn(sample: Mapping[str, Any]) -> dict[str, Any]:
    """Python that holds the lock."""
    total = 0
    for number in range(20_000):
        total += number
    return {"x": sample["x"], "total": np.int64(total)}


def patient(sample: Mapping[str, Any]) -> dict[str, Any]:
    """Waits for something else, as native code does, without the lock."""
    threading.Event().wait(0.002)
    return {"x": sample["x"]}


def picky(sample: Mapping[str, Any]) -> dict[str, Any]:
    """Fails on one sample."""
    if int(np.ravel(sample["x"])[0]) == 17:
        raise ZeroDivisionError("no seventeen")
    return {"x": sample["x"]}


def doomed(sample: Mapping[str, Any]) -> dict[str, Any]:
    """Is killed in its own process at one sample, as by the system."""
    if int(np.ravel(sample["x"])[0]) == 17 and multiprocessing.parent_process() is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"x": sample["x"]}


def uneven(sample: Mapping[str, Any]) -> dict[str, Any]:
    """Another shape for some samples."""
    return {"x": np.zeros(3 if int(np.ravel(sample["x"])[0]) % 7 else 4)}
