"""Whether a training holds more the longer it goes on: what is charged, over a thousand steps and more."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from statistics import median

from tests.data.sets import blob_set

from benchmarks.children import GIB, caudal, mib
from benchmarks.rows import Row
from caudal.core.events import MemoryRead, StepDone, read

STEPS, WARM = 1300, 200


def row() -> Row:
    """A U-Net on scenes; readings after the first steps beside the last ones."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scenes = blob_set(folder / "scenes", [(400, 500)] * 12, bands=5)
        spec = folder / "spec.toml"
        spec.write_text(
            f'task = "segmentation"\n[data]\nimages = [{json.dumps(str(scenes))}]\npatch_px = 64\n'
            f"[model]\nconfig = {{width = 16}}\n[training]\nsteps = {STEPS}\nvalidate_every = {STEPS}\n"
        )
        result, ended = caudal(GIB, "train", spec, "-o", folder / "run", "--ram", "1GiB")
        held, step = list[int](), 0
        for event in read(folder / "run" / "events.jsonl"):
            if isinstance(event, StepDone):
                step = event.step
            elif isinstance(event, MemoryRead) and WARM <= step < STEPS:
                held.append(event.ram)
    tenth = max(3, len(held) // 10)
    first, last = median(held[:tenth]), median(held[-tenth:])
    drift = last / first - 1
    return Row(
        f"a U-Net trained for {STEPS} steps in a real group of 1 GiB; the bytes charged each second, the "
        f"first tenth after {WARM} steps beside the last",
        "less than 1 % more after 1 000 steps",
        drift < 0.01 and not ended.oom_kills,
        [
            ("first tenth, last tenth", f"{mib(first)}, {mib(last)} ({drift:+.2%})"),
            ("least, most, readings", f"{mib(min(held))}, {mib(max(held))}, {len(held)}"),
            ("samples/s", f"{result['samples_per_second']:.0f}"),
        ],
    )
