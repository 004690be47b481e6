"""What the device holds: torch's own count, and NVML's view of everybody's.

torch is imported only when asked: planning on a machine without a GPU costs nothing.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Any

from caudal.core.errors import DeviceMissing, UsageError
from caudal.core.messages import _
from caudal.core.units import Bytes

DEFAULT_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU, as its driver describes it; bytes are of the whole card."""

    index: int
    name: str
    total: Bytes
    free: Bytes


@dataclass(frozen=True, slots=True)
class Reading:
    """Who holds a card's bytes.

    `allocated` is in this process's tensors; `reserved` is what its allocator has taken for them, and keeps;
    `free` is on the card for anyone. `others` is held by other processes as NVML lists them, and `None` where
    it does not: without NVML, in a container that does not show who is who, on Windows' side of WSL.
    """

    total: Bytes
    free: Bytes
    allocated: Bytes
    reserved: Bytes
    others: Bytes | None

    @property
    def beside(self) -> Bytes:
        """In use and not in this process's allocator: the others, and every process's own context."""
        return Bytes(max(0, self.total - self.free - self.reserved))


def devices() -> list[Device]:
    """The GPUs that torch can use; empty when there is none."""
    import torch

    found = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(index)
        found.append(Device(index, torch.cuda.get_device_name(index), Bytes(total), Bytes(free)))
    return found


def choose(asked: str) -> str:
    """`"cuda"` or `"cpu"` for what the user asked: `auto`, `cuda` or `cpu`. Never a silent fallback.

    Raises:
        DeviceMissing: `cuda` was asked for and no GPU can be used.
    """
    if asked == "cpu":
        return "cpu"
    if devices():
        return "cuda"
    if asked == "cuda":
        raise DeviceMissing(
            _("No GPU can be used here, and --device cuda asks for one."),
            _("Run `caudal doctor` to see why, or give --device cpu."),
        )
    return "cpu"


def card() -> int:
    """The number of this process's card: of processes that learn one model together each has its own."""
    together = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return int(os.environ.get("LOCAL_RANK", "0")) if together else 0


def budget_of(asked: Bytes | None) -> Bytes:
    """The VRAM budget asked for, or 90 % of what is free on this process's card, or its own already.

    Raises:
        UsageError: more was asked for than the card has.
    """
    import torch

    free, total = torch.cuda.mem_get_info(card())
    if asked is None:
        return Bytes((free + torch.cuda.memory_reserved(card())) * DEFAULT_SHARE)
    if asked > total:
        raise UsageError(
            _("--vram asks for {asked}, and the card has {total}.").format(asked=asked, total=Bytes(total)),
            _("Ask for no more than that."),
        )
    return asked


def cap(budget: Bytes) -> None:
    """Make the VRAM budget hard: past it torch raises an error that can be caught."""
    import torch

    total = torch.cuda.get_device_properties(card()).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, budget / total), card())


def allowed_on(device: str, asked: Bytes | None) -> Bytes | None:
    """The bytes that may be held on `device`, made hard; `None` on the CPU.

    Raises:
        UsageError: the device has less than `asked`.
    """
    if device == "cpu":
        return None
    budget = budget_of(asked)
    cap(budget)
    return budget


def charged() -> Bytes | None:
    """Bytes that this process's allocator has taken from the device, or `None` without one."""
    import torch

    if not torch.cuda.is_available():
        return None
    return Bytes(torch.cuda.memory_reserved(card()))


_highest = [0]
"""Before the present mark was begun: what `reset_peak` would forget."""


def peak() -> Bytes | None:
    """The most bytes that the allocator had taken since the process began, or `None`."""
    since = peak_since_reset()
    return None if since is None else Bytes(max(_highest[0], since))


def peak_since_reset() -> Bytes | None:
    """The most bytes that the allocator had taken since `reset_peak`, or `None` without a device."""
    import torch

    if not torch.cuda.is_available():
        return None
    return Bytes(torch.cuda.max_memory_reserved(card()))


def reset_peak() -> None:
    """Begin a new mark, from what the allocator has taken now; `peak` goes on to know the old one."""
    import torch

    if torch.cuda.is_available():
        _highest[0] = max(_highest[0], torch.cuda.max_memory_reserved(card()))
        torch.cuda.reset_peak_memory_stats(card())


def trim() -> bool:
    """Give the device what the allocator keeps and nobody uses; false where this process uses no device.

    For the seam between two phases, not for a loop: it waits for the device, and the next phase asks anew.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return False
    torch.cuda.empty_cache()
    return True


def reading(index: int = 0) -> Reading | None:
    """Who holds the bytes of card `index`, by torch's numbers; `None` where this process uses no GPU.

    Never wakes a GPU up: a context takes hundreds of MiB, and who only looks should not pay that.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return read(torch.cuda, nvml(), index)


def read(cuda: Any, listing: Any | None, index: int = 0) -> Reading:
    """Read through `cuda` (`torch.cuda`) and `listing` (NVML, or `None`)."""
    free, total = cuda.mem_get_info(index)
    return Reading(
        total=Bytes(total),
        free=Bytes(free),
        allocated=Bytes(cuda.memory_allocated(index)),
        reserved=Bytes(cuda.memory_reserved(index)),
        others=None if listing is None else _others(listing, _handle(cuda, listing, index)),
    )


def nvml() -> Any | None:
    """NVML's module, ready, or `None` where there is none or it sees no driver."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # not installed, no driver: NVML has an error class for each
        return None
    return pynvml


def used_by_all(index: int = 0) -> Bytes | None:
    """Bytes in use on the card by every process (NVML), or `None` where NVML cannot see."""
    import torch

    listing = nvml()
    handle = None if listing is None else _handle(torch.cuda, listing, index)
    if listing is None or handle is None:
        return None
    return Bytes(listing.nvmlDeviceGetMemoryInfo(handle).used)


def _handle(cuda: Any, listing: Any, index: int) -> Any | None:
    """NVML's handle of torch's card `index`.

    Their numbers differ: `CUDA_VISIBLE_DEVICES` hides cards from torch and not from NVML, and torch's order
    is by speed. The card's own identifier is the same in both; a slice of one (MIG) has one, too.
    """
    try:
        identifier = cuda.get_device_properties(index).uuid
        for kind in ("GPU", "MIG"):
            try:
                return listing.nvmlDeviceGetHandleByUUID(f"{kind}-{identifier}")
            except listing.NVMLError:
                continue
    except Exception:  # no such card here
        return None
    return None


def _others(listing: Any, handle: Any | None) -> Bytes | None:
    if handle is None:
        return None
    try:
        held = {
            process.pid: process.usedGpuMemory
            for kind in (
                listing.nvmlDeviceGetComputeRunningProcesses,
                listing.nvmlDeviceGetGraphicsRunningProcesses,
            )
            for process in kind(handle)
        }
    except listing.NVMLError:
        return None
    # Where this process itself is not listed, numbers are those of another namespace; where one has no
    # figure, the driver does not tell.
    own = held.pop(os.getpid(), None)
    if own is None or None in held.values():
        return None
    return Bytes(sum(held.values()))
