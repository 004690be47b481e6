"""The `caudal` command. A training runs in a process of its own under a small one that outlives it.

If the system kills the run for want of memory, its end gets a name, and it goes on from its last checkpoint
on a smaller plan. Parses nothing: that is `main`'s work, in the process that does it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from caudal.core.events import JsonLines, MemoryRead, RunKilled, read
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.data.paths import local_path
from caudal.memory.meters import charged_bytes
from caudal.runs.watched import SMALLER_PLAN, WATCHER_BYTES, is_watched

_MOST_RESTARTS = 2


def main() -> None:
    """Run a verb; `train` under watch."""
    words = sys.argv[1:]
    if words[:1] != ["train"] or is_watched() or {"-h", "--help"} & set(words):
        from caudal.cli.main import main as run_verb

        run_verb()
        return
    sys.exit(_train(words))


def _train(words: list[str]) -> int:
    from caudal.runs.supervisor import watch

    restarts = 0
    while True:
        env = {WATCHER_BYTES: str(int(charged_bytes()))} | ({SMALLER_PLAN: "1"} if restarts else {})
        ending = watch([sys.executable, "-m", "caudal", *words], env)
        if ending.reason == "ended":
            return ending.code
        events = _events(words)
        peak = _peak(events)
        goes_on = ending.reason == "oom_host" and restarts < _MOST_RESTARTS and events is not None
        if events is not None:
            log = JsonLines(events)
            log(RunKilled(ending.reason, ending.signal, ending.seconds, int(peak), goes_on))
            log.close()
        if ending.reason == "oom_host":
            text = _("The system killed the run for want of memory; it had held {peak}.").format(peak=peak)
            mend = _("Give a smaller --ram, or more memory to the container.")
        else:
            text = _("Signal {number} ended the run.").format(number=ending.signal)
            mend = _("Run the same command again to go on from the last checkpoint.")
        if not goes_on:
            return _give_up(ending.reason, text, mend, "--json" in words)
        restarts += 1
        print("!", text, _("It goes on with a smaller plan."), file=sys.stderr, flush=True)


def _give_up(reason: str, text: str, mend: str, as_json: bool) -> int:
    print(f"error: {text}\n  → {mend}", file=sys.stderr, flush=True)
    if as_json:
        error = {"code": reason, "message": text, "hint": mend}
        print(json.dumps({"error": error}, ensure_ascii=False), flush=True)
    return 1


def _events(words: list[str]) -> Path | None:
    """Where the run's events are, if it was begun."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name = following if word in ("-o", "--out") else word.removeprefix("--out=")
        if name and name != word:
            folder = local_path(name, must_exist=False)
            return folder / "events.jsonl" if (folder / "spec.toml").is_file() else None
    return None


def _peak(events: Path | None) -> Bytes:
    """The most that was read while the run lived last."""
    if events is None or not events.is_file():
        return Bytes(0)
    most = 0
    for event in read(events):
        if isinstance(event, RunKilled):
            most = 0
        elif isinstance(event, MemoryRead):
            most = max(most, event.ram)
    return Bytes(most)
