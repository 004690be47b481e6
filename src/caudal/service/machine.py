"""What this machine gives to jobs, and how a claimed attempt gets its supervisor there."""

from __future__ import annotations

from caudal.core.files import is_disk_full
from caudal.memory import vram
from caudal.runs.machine import ram_budget
from caudal.service.ends import Ending
from caudal.service.place import place
from caudal.service.records import Problem
from caudal.service.settings import Settings
from caudal.service.spawn import start_supervisor
from caudal.service.store import Machine, Store


def this_machine(settings: Settings) -> Machine:
    """The machine as jobs see it.

    Raises:
        UsageError: the settings give more than there is, or nothing shows how much that is.
    """
    gpu = settings.vram if settings.vram is not None else _vram()
    return Machine(settings.worker_name, place(), int(ram_budget(settings.ram)), int(gpu), settings.most_jobs)


def _vram() -> int:
    listing = vram.nvml()
    if listing is None:
        return 0
    try:
        return int(
            vram.DEFAULT_SHARE * listing.nvmlDeviceGetMemoryInfo(listing.nvmlDeviceGetHandleByIndex(0)).free
        )
    except listing.NVMLError:
        return 0


def start_next(store: Store, settings: Settings, machine: Machine) -> int | None:
    """Claim the attempt whose turn it is and start its supervisor; the number of its process, which whoever
    calls has to wait for some time. `None` where none can begin.
    """
    claimed = store.claims.claim(machine)
    if claimed is None:
        return None
    _job, attempt = claimed
    try:
        return start_supervisor(store, settings, attempt)
    except OSError as error:
        full = is_disk_full(error)
        problem = Problem(code="disk_full" if full else "error", message=str(error))
        ending = Ending(how="disk_full" if full else "error", error=problem)
        store.claims.end(attempt, ending, settings)
        return None
