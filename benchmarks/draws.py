"""Random models, data and budgets: does what is planned stay inside, and what is refused really not fit?

Each draw is trained for some steps in a real group of its budget. One that is refused is trained again in a
group of what the refusal says that it needs; had that stayed ten per cent below the budget, it was wrong.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import tomli_w
from tests.cgroups import Ended, run_in_group
from tests.data.sets import blob_set

from benchmarks.children import CAUDAL, MIB
from benchmarks.kept import Kept, processors_of
from benchmarks.rows import Row
from caudal.core.events import RunKilled, read

DRAWS = int(os.environ.get("CAUDAL_DRAWS", "200"))
STEPS = 4
DOES_NOT_FIT = 3
_WRONG_REFUSAL = 1.1
_ENOUGH = 200
_SETS = [(bands, classes) for bands in (1, 3, 5, 8) for classes in (2, 4)]


def row() -> Row:
    """All draws; each is told as it ends."""
    random = np.random.default_rng(7)
    kept = Kept("draws")
    known = {one["number"]: one["how"] for one in kept.known()}
    ends: Counter[str] = Counter()
    bad: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sets = {
            (bands, classes): _scenes(folder / f"{bands} {classes}", bands, classes)
            for bands, classes in _SETS
        }
        for number in range(DRAWS):
            spec, budget = _draw(random, sets)
            if number in known:
                how = known[number]
            else:
                how = _tried(folder / f"{number}", spec, budget)
                kept.add({"number": number, "how": how})
                print(number, budget // MIB, how, flush=True)
            ends[how.partition(":")[0]] += 1
            if how.partition(":")[0] not in ("held", "refused, rightly"):
                bad.append(f"{how} ({json.dumps(spec['model']['config'])}, {budget // MIB} MiB)")
    return Row(
        f"{DRAWS} draws of (width, depth and stem of a U-Net, bands, classes, patch, batch, budget), "
        f"{STEPS} steps and their scoring, each in a real group of its budget",
        f"of {_ENOUGH}, no plan that then overflows, no refusal of what would have fitted by more than 10 %",
        not bad and DRAWS >= _ENOUGH,
        [
            ("ends", ", ".join(f"{end} {count}" for end, count in ends.most_common())),
            ("processors", processors_of(kept.known())),
            *(("against the promise", one) for one in bad),
        ],
    )


def _scenes(folder: Path, bands: int, classes: int) -> Path:
    """Scenes whose blobs are of one of the classes, image by image."""
    made = blob_set(folder, [(300, 300)] * 8, bands=bands)
    for number, path in enumerate(sorted((made / "masks").iterdir())):
        y_HW = tifffile.imread(path)
        tifffile.imwrite(path, np.where(y_HW > 0, 1 + number % (classes - 1), 0).astype(np.uint8))
    return made


def _draw(random: np.random.Generator, sets: dict[tuple[int, int], Path]) -> tuple[dict[str, Any], int]:
    def one_of(*values: Any) -> Any:
        return values[int(random.integers(len(values)))]

    patch = one_of(64, 96, 128, 192)
    spec = {
        "task": "segmentation",
        "data": {"images": [str(sets[one_of(*_SETS)])], "patch_px": patch},
        "model": {
            "config": {"width": one_of(8, 16, 24, 32, 48), "depth": one_of(2, 3, 4), "stem": one_of(1, 2)}
        },
        "training": {"steps": STEPS, "batch": one_of(4, 8, 16, 32), "validate_every": STEPS},
    }
    return spec, int(random.uniform(220, 900)) * MIB


def _tried(folder: Path, spec: dict[str, Any], budget: int) -> str:
    folder.mkdir()
    (folder / "spec.toml").write_text(tomli_w.dumps(spec))
    ended = _train(folder, "run", budget)
    if ended.returncode == 0:
        if any(isinstance(event, RunKilled) for event in read(folder / "run" / "events.jsonl")):
            return "overflowed: the run was killed, and went on"
        over = ended.peak_charged - budget
        return "held" if over <= 0 else f"above its budget: by {over / MIB:.0f} MiB"
    if ended.returncode != DOES_NOT_FIT:
        return f"ended otherwise: exit {ended.returncode}, {ended.output.strip()[-200:]}"
    needed = int(_last(ended)["error"]["facts"]["needed"])
    again = _train(folder, "again", -(-needed // MIB) * MIB)
    if again.returncode == 0 and again.peak_charged * _WRONG_REFUSAL < budget:
        return f"refused, wrongly: {again.peak_charged / MIB:.0f} MiB were enough"
    return "refused, rightly"


def _train(folder: Path, name: str, budget: int) -> Ended:
    words = ["train", folder / "spec.toml", "-o", folder / name, "--ram", budget, "--json"]
    cache = str(folder.parent / "cache")
    return run_in_group([*CAUDAL, *map(str, words)], budget, 600, XDG_CACHE_HOME=cache)


def _last(ended: Ended) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        [line for line in ended.output.splitlines() if line.startswith("{")][-1]
    )
    return found
