"""What the device holds: torch's own count, and NVML's view of everybody's.

torch is imported only when asked: planning on a machine without a GPU costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from caudal.core.errors import DeviceMissing
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


def cap(budget: Bytes) -> None:
    """Make the VRAM budget hard: past it torch raises an error that can be caught."""
    import torch

    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, budget / total))


def charged() -> Bytes | None:
    """Bytes that this process's allocator has taken from the device, or `None` without one."""
    import torch

    if not torch.cuda.is_available():
        return None
    return Bytes(torch.cuda.memory_reserved())


def peak() -> Bytes | None:
    """The most bytes that the allocator had taken since the process began, or `None`."""
    import torch

    if not torch.cuda.is_available():
        return None
    return Bytes(torch.cuda.max_memory_reserved())


def used_by_all(index: int = 0) -> Bytes | None:
    """Bytes in use on the card by every process (NVML), or `None` where NVML cannot see."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        return Bytes(pynvml.nvmlDeviceGetMemoryInfo(handle).used)
    except Exception:  # not installed, no driver, no card: NVML has an error class for each
        return None
