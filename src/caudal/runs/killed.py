"""What a run that was killed for want of memory teaches the next plan: it would have held its peak, or more.

A process of its own, `python -m caudal.runs.killed RUN PEAK_BYTES`: who watches over a run stays small, and
does not load what reads a plan.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from caudal.core.units import Bytes

_PATIENCE_SECONDS = 30.0


def tell(folder: Path, peak: Bytes) -> None:
    """Have it kept, in another process, that the run in `folder` was killed when it held `peak`."""
    with suppress(OSError, subprocess.TimeoutExpired):
        command = [sys.executable, "-m", "caudal.runs.killed", str(folder), str(int(peak))]
        subprocess.run(command, capture_output=True, timeout=_PATIENCE_SECONDS, check=False)


def learn(folder: Path, peak: Bytes) -> None:
    """Keep what a plan said beside what was reached, where that was more; else somebody else took the memory.

    Of a run on a device nothing is learned: it is not said which memory was short.
    """
    from caudal.memory import margin
    from caudal.runs.folder import RunFolder
    from caudal.runs.plan import stored_plan

    plan = stored_plan(RunFolder(folder).plan)
    if plan is not None and plan.device == "cpu":
        margin.note_at_least(plan.kind, int(plan.memory.predicted("ram") / (1 + plan.margin)), int(peak))


if __name__ == "__main__":
    learn(Path(sys.argv[1]), Bytes(int(sys.argv[2])))
