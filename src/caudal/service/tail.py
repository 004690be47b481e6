"""Carries the events of a run from its file into the store: each line once, whatever ends in between."""

from __future__ import annotations

import json
import shutil
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from caudal.service.records import Attempt
from caudal.service.store import Store
from caudal.service.store.rows import Said

_MOST_BYTES = 1 << 20  # in one transaction
_LAST = 20
NAME = "events.jsonl"


class Tail:
    """Where it stands is kept in the store with the events themselves, so that nothing is lost or doubled."""

    def __init__(
        self,
        store: Store,
        attempt: Attempt,
        path: Path,
        listen: Callable[[dict[str, Any]], None] = lambda _record: None,
    ) -> None:
        """`listen` hears every event that was carried."""
        self._listen = listen
        self._store, self._attempt, self._path = store, attempt, path
        self._offset: int | None = None
        self.last: deque[dict[str, Any]] = deque(maxlen=_LAST)
        """The last ones that were carried."""
        self.peak: dict[str, int] = {}
        """The most bytes that they tell of."""

    def carry(self) -> bool:
        """Carry what is there, up to a limit; whether there may be more.

        Raises:
            StoreAway: try again.
            Superseded: another attempt carries now.
        """
        if self._offset is None:
            self._offset = self._store.claims.tail_offset(self._attempt.job_id)
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                part = file.read(_MOST_BYTES)
        except FileNotFoundError:
            return False
        whole = part[: part.rfind(b"\n") + 1]
        if not whole:
            if len(part) < _MOST_BYTES:
                return False
            whole = part  # a line without end is none of ours
        records = [record for line in whole.splitlines() if (record := _record(line))]
        said: list[Said] = [
            (r["kind"], r["time"], {k: v for k, v in r.items() if k not in ("kind", "time")}) for r in records
        ]
        start, end = self._offset, self._offset + len(whole)
        self._offset, ours = self._store.claims.take_events(self._attempt, said, start, end)
        if ours:
            self._note(records)
        return len(part) == _MOST_BYTES or not ours

    def carry_all(self) -> None:
        """Carry all that is there; raises as `carry`."""
        while self.carry():
            pass

    def step_seconds(self) -> float:
        """The longest of the steps that were carried last, with what they waited; 0 where none were."""
        steps = (record for record in self.last if record["kind"] == "step_done")
        keys = ("step_seconds", "stall_seconds")
        return max((sum(float(step.get(key) or 0.0) for key in keys) for step in steps), default=0.0)

    def _note(self, records: list[dict[str, Any]]) -> None:
        self.last.extend(records)
        for record in records:
            self._listen(record)
            if record["kind"] == "memory_read":
                seen = {"ram": record.get("ram"), "vram": record.get("vram")}
            elif record["kind"] == "run_ended":
                seen = record.get("peak_bytes") or {}
            else:
                continue
            for pool, value in seen.items():
                if isinstance(value, int):
                    self.peak[pool] = max(value, self.peak.get(pool, 0))


def begin_anew(run: Path) -> None:
    """Empty a run's folder, but for what was told: where the store stands in that file goes on counting."""
    run.mkdir(parents=True, exist_ok=True)
    for path in run.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != NAME:
            path.unlink()


def _record(line: bytes) -> dict[str, Any] | None:
    """One event, or `None` for a line that a kill has cut. What is no number in JSON becomes nothing."""
    try:
        record = json.loads(line, parse_constant=lambda _constant: None)
        kind, when = record["kind"], float(record["time"])
    except (ValueError, TypeError, KeyError):
        return None
    if not isinstance(kind, str) or len(kind) > 40:
        return None
    return {**record, "time": when}
