"""Writes a set in a peer's own format, once, as a timed command of its own. It reads no samples."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.loaders.harness import ROOT
from benchmarks.loaders.sets import Making, WorkSet

FACTS = "conversion.json"


@dataclass(frozen=True)
class Converted:
    """A set in another format: what that cost in time, libraries' start included, and in bytes on disk."""

    folder: Path
    seconds: float
    file_bytes: int


def convert(module: str, python: str, work: WorkSet, cache: Path) -> Converted:
    """The set in the format of `module`, from the cache if it was made of this very set.

    Raises:
        RuntimeError: the peer could not write it; the message is its last words.
    """
    folder = cache / f"{work.folder.name}.{module.rpartition('.')[2]}"
    facts = json.loads((folder / FACTS).read_text()) if (folder / FACTS).exists() else {}
    if facts.get("set") != work.facts:
        with Making(folder) as draft:
            job = {"set": str(work.folder), "samples": work.samples, "batch": 1, "own": str(draft)}
            began = time.perf_counter()
            ended = subprocess.run(
                [python, "-m", module, "convert", json.dumps(job)], cwd=ROOT, capture_output=True, text=True
            )
            seconds = time.perf_counter() - began
            if ended.returncode:
                raise RuntimeError(
                    ended.stderr.strip().splitlines()[-1][:200] if ended.stderr.strip() else "?"
                )
            sizes = sum(path.stat().st_size for path in draft.rglob("*") if path.is_file())
            facts = {"set": work.facts, "seconds": seconds, "file_bytes": sizes}
            (draft / FACTS).write_text(json.dumps(facts))
    return Converted(folder, facts["seconds"], facts["file_bytes"])
