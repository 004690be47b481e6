"""What a plan says that a run will hold, from the file that it is stored in; without loading its room."""

from __future__ import annotations

import json
from pathlib import Path


def planned_bytes(path: Path) -> tuple[int, int]:
    """The predicted peaks of RAM and VRAM in the `plan.json` at `path`."""
    memory = json.loads(path.read_text(encoding="utf-8"))["memory"]
    totals = {"ram": 0, "vram": 0}
    for holder in memory["holders"]:
        totals[holder.get("pool", "ram")] += int(holder["bytes"])
    return totals["ram"], totals["vram"]
