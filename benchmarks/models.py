"""Models for inference rows: real runs of a few steps, so that everything a model folder holds is there."""

from __future__ import annotations

from pathlib import Path

from tests.data.sets import blob_set

from caudal.runs.verbs.plan import make_spec
from caudal.runs.verbs.train import train


def quick_run(folder: Path, bands: int, dtype: str) -> Path:
    """A run of the default model for that many bands."""
    data = blob_set(folder / "set", [(160, 160)] * 6, bands=bands, dtype=dtype)
    spec = make_spec("segmentation", data, ram="2GiB", training={"steps": 20, "validate_every": 20})
    train(spec, out=folder / "run")
    return folder / "run"
