"""The `caudal` command. A training runs in a process of its own under a small one that outlives it.

If the run ends for want of memory, its end gets a name, and it goes on from its last checkpoint on a smaller
plan. Parses no more than it needs to watch: the rest is `main`'s work, in the process that does it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from caudal.cli.exits import MEMORY, OTHER, TIME, exit_code
from caudal.core.errors import UsageError
from caudal.core.events import JsonLines, MemoryRead, RunKilled, read
from caudal.core.messages import _
from caudal.core.units import Bytes, parse_seconds
from caudal.data.paths import local_path
from caudal.memory.meters import charged_bytes
from caudal.runs.killed import tell
from caudal.runs.supervisor import Ending
from caudal.runs.watched import DEADLINE, SMALLER_PLAN, WATCHER_BYTES, heed_fence, is_watched

_MOST_RESTARTS = 2
_HEED_SECONDS = 20.0  # a run ends by itself at its time limit; then it is asked, and then killed
_FOR_MEMORY = ("oom_host", "out_of_memory")


def main() -> None:
    """Run a verb; `train` under watch."""
    heed_fence()
    words = sys.argv[1:]
    if words[:1] != ["train"] or is_watched() or {"-h", "--help"} & set(words):
        from caudal.cli.main import main as run_verb

        run_verb()
        return
    sys.exit(_train(words))


def _train(words: list[str]) -> int:
    from caudal.runs.supervisor import watch

    try:
        limit = parse_seconds(given) if (given := _option(words, "--time")) else None
    except UsageError as error:
        return _give_up(error.code, error.message, error.hint, "--json" in words, exit_code(error))
    began, restarts = time.monotonic(), 0
    while True:
        env = {WATCHER_BYTES: str(int(charged_bytes()))}
        env |= {SMALLER_PLAN: "1"} if restarts else {}
        left = None
        if limit is not None:
            env[DEADLINE] = str(began + limit)
            left = max(1.0, began + limit - time.monotonic()) + _HEED_SECONDS
        ending = watch([sys.executable, "-m", "caudal", *words], env, left)
        reason = "out_of_memory" if ending.reason == "ended" and ending.code == MEMORY else ending.reason
        if reason == "ended":
            return ending.code
        events = _events(words)
        may_go_on = not ending.asked_to_end and restarts < _MOST_RESTARTS and events is not None
        goes_on = reason in _FOR_MEMORY and may_go_on
        peak = _peak(events)
        _note(events, reason, ending, peak, goes_on)
        if reason in _FOR_MEMORY and events is not None:
            tell(events.parent, peak)
        text, mend = _sentences(reason, ending, peak)
        if not goes_on:
            if reason == "out_of_memory":
                return ending.code  # it has said so itself
            return _give_up(reason, text, mend, "--json" in words, TIME if reason == "timeout" else OTHER)
        restarts += 1
        print("!", text, _("It goes on with a smaller plan."), file=sys.stderr, flush=True)


def _note(events: Path | None, reason: str, ending: Ending, peak: Bytes, goes_on: bool) -> None:
    if events is None:
        return
    log = JsonLines(events)
    log(
        RunKilled(
            reason,
            ending.signal,
            ending.seconds,
            int(peak),
            goes_on,
            resident_bytes=int(ending.resident),
            cpu_seconds=ending.cpu_seconds,
        )
    )
    log.close()


def _sentences(reason: str, ending: Ending, peak: Bytes) -> tuple[str, str]:
    """What happened, and the mend."""
    if reason == "oom_host":
        return (
            _("The system killed the run for want of memory; it had held {peak}.").format(peak=peak),
            _("Give a smaller --ram, or more memory to the container."),
        )
    if reason == "out_of_memory":
        return (
            _("The run ran out of memory; it had held {peak}.").format(peak=peak),
            _("Give a smaller --ram, or more memory to the container."),
        )
    if reason == "oom_shm":
        return (
            _("The run was ended because /dev/shm is full."),
            _("Remove what others left there, or give it more room (docker run --shm-size)."),
        )
    if reason == "timeout":
        return (
            _("The time limit was reached, and the run did not end by itself."),
            _("Run the same command again to go on from the last checkpoint."),
        )
    return (
        _("Signal {number} ended the run.").format(number=ending.signal),
        _("Run the same command again to go on from the last checkpoint."),
    )


def _give_up(reason: str, text: str, mend: str, as_json: bool, code: int) -> int:
    print(f"error: {text}\n  → {mend}", file=sys.stderr, flush=True)
    if as_json:
        error = {"code": reason, "message": text, "hint": mend}
        print(json.dumps({"error": error}, ensure_ascii=False), flush=True)
    return code


def _option(words: list[str], *names: str) -> str:
    """The value of an option, as `--name value` or `--name=value`; empty if it is not given."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        for name in names:
            if word == name:
                return following
            if name.startswith("--") and word.startswith(f"{name}="):
                return word.removeprefix(f"{name}=")
            if not name.startswith("--") and word.startswith(name) and not word.startswith("--"):
                return word.removeprefix(name)
    return ""


def _events(words: list[str]) -> Path | None:
    """Where the run's events are, if it was begun."""
    name = _option(words, "-o", "--out")
    folder = local_path(name, must_exist=False) if name else None
    return folder / "events.jsonl" if folder is not None and (folder / "spec.toml").is_file() else None


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
