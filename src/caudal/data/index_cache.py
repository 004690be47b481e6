"""Keeps the index of a large set in the user's cache folder, so that the next start reads no header.

Columns are plain .npy files that are mapped, not read: an index of millions of samples is there at once.
It is taken only while every folder of the set has the time of change that it had; a file that was written
over in place is found when it is opened, by its size.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import fields as record_fields
from pathlib import Path
from typing import Any

import numpy as np

from caudal.core.caches import user_cache
from caudal.data.index import Names
from caudal.data.sample_files import SAMPLE_READERS, name_of
from caudal.data.sample_files.base import Array, Field, SampleReader
from caudal.data.sample_listing import texts
from caudal.data.sample_set import Columns, SampleSet

_VERSION = 3
_META = "index.json"


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/caudal/index`, by default below `~/.cache`."""
    return user_cache() / "caudal" / "index"


def key_of(root: Path, *settings: object) -> str:
    """The name under which an index made with these settings is kept."""
    text = json.dumps([str(root.resolve()), *map(str, settings)])
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def store(folder: Path, samples: SampleSet, root: Path) -> None:
    """Keep an index in `folder`; a failure to write is nobody's harm, and leaves nothing half."""
    part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    try:
        part.mkdir(parents=True)
        columns = samples.columns
        arrays: dict[str, Array] = {"names.blob": columns.names.blob, "names.ends": columns.names.ends}
        for one in record_fields(Columns):
            value = getattr(columns, one.name)
            if isinstance(value, np.ndarray):
                arrays[one.name] = value
            elif isinstance(value, dict):
                arrays |= {f"{one.name}.{name}": array for name, array in value.items()}
        files = {}
        for k, (name, array) in enumerate(arrays.items()):
            files[name] = f"{k}.npy"
            np.save(part / files[name], array)
        meta = {
            "version": _VERSION,
            "root": samples.root,
            "reader": name_of(samples.reader),
            "fields": [[f.name, f.dtype.str, f.shape, f.categories] for f in samples.fields],
            "whole": samples.whole,
            "scratch_bytes": samples.scratch_bytes,
            "notes": samples.notes,
            "raw": samples.raw,
            "files": files,
            "folders": _times(root, columns.names),
        }
        (part / _META).write_text(json.dumps(meta))
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    except OSError:
        shutil.rmtree(part, ignore_errors=True)


def load(folder: Path, root: Path, reader: SampleReader | None) -> SampleSet | None:
    """The index that was kept, if it is still true; `reader` is the one it was made with, if it was given."""
    try:
        meta = json.loads((folder / _META).read_text())
        if meta["version"] != _VERSION or any(_time(name) != time for name, time in meta["folders"].items()):
            return None
        if reader is None and meta["reader"] not in SAMPLE_READERS.names():
            return None
        arrays = {name: np.load(folder / file, mmap_mode="r") for name, file in meta["files"].items()}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    columns = Columns(
        names=Names(arrays["names.blob"], arrays["names.ends"]),
        sizes=arrays["sizes"],
        file_ends=arrays["file_ends"],
        file_blocks=arrays["file_blocks"],
        block_ends=arrays["block_ends"],
        row_ends=_group(arrays, "row_ends."),
        places=_group(arrays, "places.") if meta["raw"] else None,
        extra=_group(arrays, "extra."),
        checks=arrays.get("checks"),
        recode=_group(arrays, "recode."),
    )
    return SampleSet(
        meta["root"],
        tuple(_field(*row) for row in meta["fields"]),
        columns,
        reader or SAMPLE_READERS.get(meta["reader"])(),
        meta["whole"],
        meta["scratch_bytes"],
        tuple(meta["notes"]),
    )


def _field(name: str, dtype: str, shape: list[int | None], categories: list[str]) -> Field:
    return Field(name, np.dtype(dtype), tuple(shape), tuple(categories))


def _group(arrays: dict[str, Any], prefix: str) -> dict[str, Array]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _times(root: Path, names: Names) -> dict[str, int | None]:
    """When each folder of the set changed last, or the file that is the set."""
    if root.is_file():
        return {str(root): _time(str(root))}
    folders = {str(root)} | {name.rpartition("/")[0] or str(root) for name in texts(names)}
    for folder in list(folders):  # a new folder between two known ones changes the one above it
        above = Path(folder)
        while above != root and root in above.parents:
            folders.add(str(above))
            above = above.parent
    return {folder: _time(folder) for folder in sorted(folders)}


def _time(name: str) -> int | None:
    try:
        return Path(name).stat().st_mtime_ns
    except OSError:
        return None
