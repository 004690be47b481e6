"""Who holds a card's bytes, through stand-ins that answer as torch.cuda and NVML do."""

# ruff: noqa: N802 (NVML names its functions like that)

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from caudal.memory import vram

GIB = 2**30


class Cuda:
    """Two cards of 24 GiB, of which number 1 is in use; NVML lists them the other way round."""

    uuids = ("aaaa-0", "bbbb-1")

    def mem_get_info(self, index: int) -> tuple[int, int]:
        return ((24, 10)[index] * GIB, 24 * GIB)

    def memory_allocated(self, index: int) -> int:
        return (0, 3)[index] * GIB

    def memory_reserved(self, index: int) -> int:
        return (0, 5)[index] * GIB

    def get_device_properties(self, index: int) -> Any:
        return SimpleNamespace(uuid=self.uuids[index])


class Nvml:
    """Processes by card; a `pid` may be on the list of those that compute and of those that draw."""

    class NVMLError(Exception):
        pass

    def __init__(self, *held: tuple[int, int | None], slices: bool = False, old: bool = False) -> None:
        self.held, self.kind, self.old = held, "MIG" if slices else "GPU", old

    def nvmlDeviceGetHandleByUUID(self, name: str) -> str:
        if name not in (f"{self.kind}-aaaa-0", f"{self.kind}-bbbb-1"):
            raise self.NVMLError("Not Found")
        return name

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[Any]:
        if self.old:
            raise self.NVMLError("Not Supported")
        mine = self.held if handle.endswith("bbbb-1") else ()
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in mine]

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: str) -> list[Any]:
        return self.nvmlDeviceGetComputeRunningProcesses(handle)[:1]


ME = os.getpid()


def others(*held: tuple[int, int | None], **how: bool) -> int | None:
    return vram.read(Cuda(), Nvml(*held, **how), 1).others


def test_bytes_in_use_are_this_processes_or_beside_it() -> None:
    found = vram.read(Cuda(), None, 1)
    assert (found.total, found.free) == (24 * GIB, 10 * GIB)
    assert (found.allocated, found.reserved, found.others) == (3 * GIB, 5 * GIB, None)
    assert found.beside == found.total - found.free - found.reserved == 9 * GIB
    assert vram.read(Cuda(), None, 0).beside == 0


def test_other_processes_are_those_that_nvml_lists_each_once() -> None:
    assert others((ME, 6 * GIB), (77, 5 * GIB), (78, 3 * GIB)) == 8 * GIB
    assert others((77, 5 * GIB), (ME, 6 * GIB)) == 5 * GIB
    assert others((ME, 6 * GIB)) == 0


def test_a_slice_of_a_card_is_found_by_its_own_name() -> None:
    assert others((ME, GIB), (77, 2 * GIB), slices=True) == 2 * GIB


@pytest.mark.parametrize(
    "held", [(), ((77, GIB),), ((ME, GIB), (77, None))], ids=["nobody", "other numbers", "no figure"]
)
def test_what_nvml_does_not_tell_is_not_made_up(held: tuple[tuple[int, int | None], ...]) -> None:
    assert others(*held) is None


def test_a_driver_that_lists_nobody_and_a_card_it_does_not_know_are_said_so() -> None:
    assert others((ME, GIB), old=True) is None
    cuda = Cuda()
    cuda.uuids = ("aaaa-0", "cccc-2")
    assert vram.read(cuda, Nvml((ME, GIB)), 1).others is None


def test_looking_wakes_no_gpu_up() -> None:
    assert vram.reading() is None


def test_of_processes_that_learn_together_each_has_a_card_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert vram.card() == 0  # alone, whatever else is set
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert vram.card() == 1
