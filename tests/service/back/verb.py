"""A program that takes the verbs' words and does what its task says, in no time: for tests of who runs it.

hold SECONDS…       events every tenth of a second; ends at SIGTERM with code 5, as a training does
deaf                the same, and hears no SIGTERM; with a child that hears none either
say CODE            ends with an error of that code
crash WORDS         ends with a traceback
die SIGNAL          by a signal
weigh BYTES SECONDS as `hold`; a plan says that it holds so much
swell BYTES SECONDS as `hold`; the plan that it writes says that it holds so much
count               adds one line to the file `count` beside the run at each start, then as `hold 0.5`
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    words = sys.argv[1:]
    if words[0] == "plan":
        plan(words)
    out = Path(next(word.removeprefix("--out=") for word in words if word.startswith("--out=")))
    task, *given = words[words.index("--") + 1 :]
    out.mkdir(parents=True, exist_ok=True)
    with (out.parent / "starts").open("a") as starts:
        starts.write(f"{os.getpid()} {os.environ.get('CAUDAL_SMALLER_PLAN', '')} {' '.join(words)}\n")
    verbs = {
        "hold": hold,
        "deaf": deaf,
        "say": say,
        "crash": crash,
        "die": die,
        "weigh": weigh,
        "swell": swell,
    }
    verbs[task](out, *given)


def plan(words: list[str]) -> None:
    budget = int(next(word.removeprefix("--ram=") for word in words if word.startswith("--ram=")))
    task, *given = words[words.index("--") + 1 :]
    if task != "weigh":
        sys.exit(1)
    if int(given[0]) > budget:
        hint = f"Give --ram {given[0]} or more."
        end({"error": {"code": "does_not_fit", "message": "It does not fit.", "hint": hint}}, 3)
    end({"verb": "plan", "predicted_bytes": {"ram": int(given[0]), "vram": 0}}, 0)


def weigh(out: Path, _bytes: str, seconds: str) -> None:
    hold(out, seconds)


def swell(out: Path, held: str, seconds: str) -> None:
    plan = {"memory": {"holders": [{"pool": "ram", "bytes": int(held)}]}}
    (out / "plan.json").write_text(json.dumps(plan))
    hold(out, seconds)


def hold(out: Path, seconds: str = "0") -> None:
    def stop(_number: int, _frame: object) -> None:
        end({"error": {"code": "interrupted", "message": "Stopped.", "hint": ""}}, 5)

    signal.signal(signal.SIGTERM, stop)
    work(out, float(seconds))


def work(out: Path, seconds: float) -> None:
    """Go on where the last one was, with a lock that only one can have."""
    import fcntl

    with (out / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        step_file = out / "step"
        step = int(step_file.read_text()) if step_file.exists() else 0
        deadline = float(os.environ.get("CAUDAL_DEADLINE", "inf"))
        with (out / "events.jsonl").open("a", buffering=1) as events:
            while step < seconds * 10:
                step += 1
                time.sleep(0.1)
                events.write(json.dumps({"kind": "step_done", "time": time.time(), "step": step}) + "\n")
                part = out / "step.part"
                part.write_text(str(step))
                part.replace(step_file)
                if time.monotonic() > deadline:
                    end({"error": {"code": "timeout", "message": "Time is up.", "hint": ""}}, 8)
        end({"verb": "train", "metrics": {"iou": 0.5, "nothing": float("nan")}, "steps": step}, 0)


def deaf(out: Path, seconds: str = "60") -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], start_new_session=False)
    (out.parent / "child").write_text(str(child.pid))
    work(out, float(seconds))


def say(_out: Path, code: str) -> None:
    end({"error": {"code": code, "message": "So it is.", "hint": "Mend it."}}, 1)


def crash(_out: Path, *words: str) -> None:
    raise RuntimeError(" ".join(words))


def die(_out: Path, number: str) -> None:
    os.kill(os.getpid(), int(number))


def end(told: dict[str, object], code: int) -> None:
    print(json.dumps(told), flush=True)
    os._exit(code)


if __name__ == "__main__":
    from caudal.runs.watched import heed_fence

    heed_fence()
    main()
