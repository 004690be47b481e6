"""A stream that is killed goes on with the same bytes, whatever the number of threads and ranks."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

KILLS = int(os.environ.get("CAUDAL_STREAM_KILLS", "2"))
CHILD = Path(__file__).with_name("stream_child.py")


def lines(folder: Path, state: str, world: int, threads: int, kill_after: int | None) -> list[list[object]]:
    """What a child printed until it was killed after so many lines, or until its end."""
    command = [sys.executable, str(CHILD), str(folder), state, str(world), str(threads)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    seen = []
    for line in child.stdout:
        seen.append(json.loads(line))
        if len(seen) == kill_after:
            os.kill(child.pid, signal.SIGKILL)
            break
    child.stdout.close()
    code = child.wait()
    assert code == (-signal.SIGKILL if len(seen) == kill_after else 0)
    return seen


def test_a_stream_killed_at_random_steps_gives_the_same_bytes_as_one_that_was_not(tmp_path: Path) -> None:
    for k in range(5):
        number = np.arange(800 * k, 800 * (k + 1), dtype=np.float32)
        np.savez(tmp_path / f"{k}.npz", x=np.repeat(number[:, None], 90, 1), y=number.astype(np.int64) // 500)
    whole = [crc for crc, _state in lines(tmp_path, "", 1, 2, None)]
    assert len(whole) == -(-4000 // 48)
    draw, got, state = random.Random(4), [], ""
    for kill in range(KILLS):
        left = len(whole) - len(got)
        stop = max(1, min(draw.randint(1, 2 * len(whole) // KILLS), left - (KILLS - kill)))
        seen = lines(tmp_path, state, draw.randint(1, 3), draw.randint(1, 4), stop)
        got += [crc for crc, _state in seen]
        state = json.dumps(seen[-1][1])
    got += [crc for crc, _state in lines(tmp_path, state, 3, 1, None)]
    assert got == whole
