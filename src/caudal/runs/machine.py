"""What a run may use of this machine, and how its processors and its allocator are set up."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from caudal.core.errors import UsageError
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.memory import allocator
from caudal.memory.limits import DEFAULT_SHARE, Limit, ram_limits
from caudal.memory.meters import charged_bytes
from caudal.runs.watched import is_watched

_SPINS = 3000


def settle() -> None:
    """Set the process up for a run; to be called before torch is imported, and harmless afterwards.

    Threads that wait for each other soon go to sleep instead of turning in circles: the decoding threads
    use the same processors, and a thread that spins keeps the one it waits for from running. Measured with
    one other busy process on 2 cores: small training steps 4 times faster. They turn for some microseconds
    first, because waking takes longer than the shortest waits: without that, a step on idle cores takes
    up to 1.7 times as long.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        os.environ.setdefault("GOMP_SPINCOUNT", str(_SPINS))
    allocator.settle()


def processors() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0))


def processes_here() -> int:
    """How many processes that learn one model together share this machine, as `torchrun` says."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def follows() -> bool:
    """Whether this is one of such processes, and not the first, which plans and writes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and int(os.environ.get("RANK", "0")) > 0


def left_by_others(root: Path = Path("/")) -> tuple[Bytes, Bytes] | None:
    """Under the limit where it is least: what others leave to this run, and what they hold there.

    `None` where no limit shows. The run are the processes below this one, and those that stand beside it: who
    watches over it, and who learns the same model.
    """
    beside = is_watched() or processes_here() > 1
    own = charged_bytes(os.getppid() if beside else None, root)
    known = [
        (Bytes(limit.bytes - limit.others(own)), limit.others(own))
        for limit in ram_limits(root)
        if limit.bytes is not None
    ]
    return min(known, key=lambda pair: pair[0], default=None)


def ram_budget(asked: Bytes | None, root: Path = Path("/")) -> Bytes:
    """The RAM budget asked for, or 80 % of what others leave under the limits that this process is under.

    Raises:
        UsageError: more was asked for than the machine or the container has, or nothing, and no limit shows.
    """
    if asked is None:
        found = left_by_others(root)
        if found is None:
            raise UsageError(
                _("No meter shows how much memory there is here."), _("Give a budget with --ram.")
            )
        return Bytes(found[0] * DEFAULT_SHARE)
    known = [limit for limit in ram_limits(root) if limit.bytes is not None]
    least = min(known, key=lambda limit: int(limit.bytes or 0), default=Limit("none", None))
    if least.bytes is not None and asked > least.bytes:
        raise UsageError(
            _("--ram asks for {asked}, and the limit “{name}” is {limit}.").format(
                asked=asked, name=least.name, limit=least.bytes
            ),
            _("Ask for no more than that."),
        )
    return asked
