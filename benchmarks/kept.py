"""What a row has measured so far, kept beside the sets: a row that was cut short goes on where it was."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.peers.setup import home


class Kept:
    """The runs of a row, one a line in `ends.jsonl` of its folder; remove that where the program has changed.

    Several processes may add to it.
    """

    def __init__(self, row: str) -> None:
        """Make the row's folder where it is not there."""
        self.folder = Path(os.environ.get("CAUDAL_BENCH_CACHE", home().parent / "sets")) / row
        self.folder.mkdir(parents=True, exist_ok=True)
        self._log = self.folder / "ends.jsonl"

    def known(self) -> list[dict[str, Any]]:
        """All runs so far."""
        return [json.loads(line) for line in self._log.read_text().splitlines()] if self._log.exists() else []

    def add(self, run: dict[str, Any]) -> None:
        """One more, and how many processors it had: several may be run beside each other."""
        with self._log.open("a") as file:
            file.write(json.dumps(run | {"processors": len(os.sched_getaffinity(0))}) + "\n")


def processors_of(runs: Iterable[dict[str, Any]]) -> str:
    """How many of these runs had how many processors."""
    counts = Counter(run["processors"] for run in runs if "processors" in run)
    return ", ".join(f"{number}: {count} runs" for number, count in sorted(counts.items()))
