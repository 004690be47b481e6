"""The work of the loader benchmarks: seeded sets, made once in a cache folder and used again.

This file knows which sets there are, and makes them whole or not at all: a set is written beside its place
and renamed when it is complete. What is in them is made in `tensor_sets.py` and `picture_sets.py`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.loaders import picture_sets, tensor_sets

VERSION = 1
Maker = Callable[[Path, float], dict[str, Any]]

SETS: dict[str, Maker] = {
    "ragged": tensor_sets.ragged,
    "chips": tensor_sets.chips,
    "tensors": tensor_sets.tensors,
    "graphs": tensor_sets.graphs,
    "table": tensor_sets.table,
    "tiled_deflate": picture_sets.tiled_deflate,
    "striped_lzw": picture_sets.striped_lzw,
    "small_lzw": picture_sets.small_lzw,
    "tiled_zstd": picture_sets.tiled_zstd,
    "photographs": picture_sets.photographs,
}


@dataclass(frozen=True)
class WorkSet:
    """A set on disk. `facts` are those of its `set.json`: kind, samples, and what the kind adds."""

    name: str
    folder: Path
    facts: dict[str, Any]

    @property
    def samples(self) -> int:
        """Samples of an epoch."""
        return int(self.facts["samples"])

    @property
    def sample_bytes(self) -> float:
        """Mean bytes of a sample as it is delivered."""
        return float(self.facts["sample_bytes"])

    @property
    def file_bytes(self) -> int:
        """Bytes of the files."""
        return sum(path.stat().st_size for path in self.folder.iterdir())


def default_cache() -> Path:
    """Where the sets live: `CAUDAL_BENCH_CACHE`, else `build/bench` in the repository."""
    return Path(os.environ.get("CAUDAL_BENCH_CACHE", Path(__file__).parents[2] / "build" / "bench"))


def make(name: str, cache: Path, share: float = 1.0) -> WorkSet:
    """The set `name`, from the cache if it is complete there; `share` of its samples, for trials."""
    wanted = {"name": name, "share": share, "version": VERSION}
    folder = cache / (name if share == 1 else f"{name}-{share:g}")
    facts = _facts(folder)
    if {key: facts.get(key) for key in wanted} != wanted:
        with Making(folder) as draft:
            facts = SETS[name](draft, share) | wanted
            (draft / "set.json").write_text(json.dumps(facts, indent=1))
    return WorkSet(name, folder, facts)


def _facts(folder: Path) -> dict[str, Any]:
    path = folder / "set.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


class Making:
    """A folder that appears under its name only when it is complete and on the disk."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._draft = folder, folder.with_name(f".{folder.name}-{os.getpid()}")

    def __enter__(self) -> Path:
        shutil.rmtree(self._draft, ignore_errors=True)
        self._draft.mkdir(parents=True)
        return self._draft

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            os.sync()  # pages that are not on the disk yet cannot be dropped from the cache
            shutil.rmtree(self._folder, ignore_errors=True)
            self._draft.rename(self._folder)
        else:
            shutil.rmtree(self._draft, ignore_errors=True)


def warm(folder: Path) -> None:
    """Read every file once, so that its pages are in the cache."""
    for path in _files(folder):
        with path.open("rb") as file:
            while file.read(16 << 20):
                pass


def forget(folder: Path) -> None:
    """Drop the pages of every file from the cache."""
    for path in _files(folder):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
