"""What no machine that is here can hold, and how that is said; knows nothing of who begins when."""

from __future__ import annotations

from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.service.records import Problem
from caudal.service.store import Store


def largest(store: Store) -> tuple[int, int] | None:
    """The most bytes of RAM and of VRAM that jobs can get on a machine; `None` where none is here.

    Raises:
        StoreAway: the database does not answer.
    """
    here = [worker for worker in store.workers.list() if worker.state == "here"]
    if not here:
        return None
    return max(worker.ram_bytes for worker in here), max(worker.vram_bytes for worker in here)


def too_large(needed: tuple[int, int], most: tuple[int, int]) -> Problem | None:
    """Why a job that needs so much of RAM and VRAM begins on none of them; `None` where it can."""
    for want, have in zip(needed, most, strict=True):
        if want > have:
            text = _("It needs {needed}, and the largest machine has {most} for jobs.")
            return Problem(
                code="does_not_fit",
                message=text.format(needed=Bytes(want), most=Bytes(have)),
                hint=_("Give it a smaller budget, or the service a larger one."),
            )
    return None
