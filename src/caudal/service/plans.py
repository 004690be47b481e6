"""Plans on request: `caudal plan` in a child of its own, with a time limit; few at a time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from caudal.core import confined, errors
from caudal.core.errors import CaudalError
from caudal.core.files import write_whole
from caudal.core.messages import _
from caudal.memory.process import part_of
from caudal.runs.watched import WATCHER_BYTES
from caudal.service import asks
from caudal.service.orders import Orders
from caudal.service.problems import Refused, not_found
from caudal.service.serving import Limits

_KEPT = 1000
_AT_ONCE = 500  # of those that are old
_OLD_SECONDS = 86400.0


class PlanView(BaseModel):
    """What a training would hold and why. Submit a job with its `id` to have it trained."""

    id: str
    created: float
    task: str
    device: str
    budget_bytes: dict[str, int]
    predicted_bytes: dict[str, int]
    holders: list[dict[str, Any]]
    levers: dict[str, str]
    steps: int
    seconds: float
    samples_per_second: float
    facts: dict[str, Any]
    warnings: list[str]


class Planner:
    """Makes plans, and finds them again. The newest thousand are kept."""

    def __init__(self, orders: Orders, limits: Limits) -> None:
        self._orders, self._limits = orders, limits
        self._room = threading.BoundedSemaphore(limits.plans)

    def plan(self, asked: asks.NewPlan) -> PlanView:
        """Plan.

        Raises:
            Refused: 503 if others are being made.
            CaudalError: as `caudal plan`; `TimeIsUp` after the time limit.
        """
        if not self._room.acquire(blocking=False):
            raise Refused(
                503, "busy", _("Another plan is being made."), _("Ask again."), {"Retry-After": "5"}
            )
        try:
            plan_id, spec = self._orders.write_spec(asked)
            try:
                view = _view(plan_id, spec, self._said(spec))
                text = view.model_dump_json()
                write_whole(spec.with_name("plan.json"), lambda part: part.write_text(text, encoding="utf-8"))
            except BaseException:
                shutil.rmtree(spec.parent, ignore_errors=True)
                raise
            self._sweep()
            return view
        finally:
            self._room.release()

    def get(self, plan_id: str) -> PlanView:
        """One that was made.

        Raises:
            Refused: 404.
        """
        try:
            text = (self._orders.plans / plan_id / "plan.json").read_text(encoding="utf-8")
        except OSError:
            raise not_found(_("There is no such plan.")) from None
        return PlanView.model_validate_json(text)

    def _said(self, spec: Path) -> dict[str, Any]:
        words = [sys.executable, "-m", "caudal", "plan", str(spec), "--json"]
        child = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            process_group=0,
            env=os.environ | confined.environment(self._orders.reads()) | {WATCHER_BYTES: str(_own_bytes())},
        )
        try:
            out, _err = child.communicate(timeout=self._limits.plan_seconds)
        except subprocess.TimeoutExpired:
            raise errors.TimeIsUp(
                _("The plan took more than {seconds:.0f} s.").format(seconds=self._limits.plan_seconds),
                _("Raise the limit, or plan by hand with `caudal plan`."),
            ) from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        lines = out.decode("utf-8", "replace").strip().splitlines()
        said: dict[str, Any] = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
        if "error" in said:
            raise as_error(said["error"])
        if "plan" not in said:
            raise CaudalError(_("The planning ended without a plan."), _("Look into the server's log."))
        return said

    def _sweep(self) -> None:
        """Remove the oldest plans, and specs of plans that were never made."""
        made, begun = list[Path](), list[Path]()
        for folder in sorted(self._orders.plans.iterdir()):
            (made if (folder / "plan.json").is_file() else begun).append(folder)
        old = time.time() - _OLD_SECONDS
        gone = [*made[:-_KEPT], *(folder for folder in begun if folder.stat().st_mtime < old)]
        for first in range(0, len(gone), _AT_ONCE):
            specs = {str(folder / "spec.toml"): folder for folder in gone[first : first + _AT_ONCE]}
            for spec in set(specs) - self._orders.specs_in_use(specs):
                shutil.rmtree(specs[spec], ignore_errors=True)


def _own_bytes() -> int:
    """What this process holds. A run is watched by one that is no larger, and has that in its budget too."""
    part = part_of(os.getpid())
    return 0 if part is None else part.anonymous + part.shared


def _view(plan_id: str, spec: Path, said: dict[str, Any]) -> PlanView:
    plan = said["plan"]
    return PlanView(
        id=plan_id,
        created=spec.stat().st_mtime,
        task=plan["spec"]["task"],
        device=plan["device"],
        budget_bytes=said["budget_bytes"],
        predicted_bytes=said["predicted_bytes"],
        holders=plan["memory"]["holders"],
        levers=said["levers"],
        steps=plan["steps"],
        seconds=plan["seconds"],
        samples_per_second=plan["samples_per_second"],
        facts=plan["facts"],
        warnings=said["warnings"],
    )


def as_error(said: dict[str, str]) -> CaudalError:
    """The error that a child told of, by its code; of its base where the kind is not known."""

    def kinds(kind: type[CaudalError]) -> list[type[CaudalError]]:
        return [kind, *(below for one in kind.__subclasses__() for below in kinds(one))]

    found = {kind.code: kind for kind in kinds(CaudalError) if kind is not errors.UnreadableFile}
    kind = errors.DataError if said["code"] == errors.UnreadableFile.code else found.get(said["code"])
    return (kind or CaudalError)(said["message"], said.get("hint", ""))
