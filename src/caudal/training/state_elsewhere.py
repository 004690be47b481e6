"""The optimizer's state where it does not count: mapped from a file, or in the host's memory beside a device.

A step of the optimizer needs each weight's two numbers once. On the CPU they lie in a file whose pages the
system may write and take; on a device they come over and go back, some weights at a time.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from caudal.core.errors import DiskFull, UsageError
from caudal.core.messages import _
from caudal.core.units import MIB, Bytes
from caudal.memory import file_systems

AT_ONCE_BYTES = Bytes(16 * MIB)
"""How much of the state is held at a time, but for a single weight that has more."""
_PAGE_BYTES = mmap.PAGESIZE


def shares(weights: Sequence[nn.Parameter], most_bytes: int = AT_ONCE_BYTES) -> Iterator[list[int]]:
    """Numbers of weights whose states together take at most `most_bytes`, in order."""
    share: list[int] = []
    held = 0
    for k, weight in enumerate(weights):
        takes = 2 * weight.numel() * weight.element_size()
        if share and held + takes > most_bytes:
            yield share
            share, held = [], 0
        share.append(k)
        held += takes
    if share:
        yield share


def at_once_bytes(weights: Sequence[nn.Parameter]) -> Bytes:
    """What is held of the state of `weights` at a time."""
    sizes = [2 * w.numel() * w.element_size() for w in weights]
    return Bytes(max((sum(sizes[k] for k in share) for share in shares(weights)), default=0))


class StateElsewhere:
    """Zeros like `weights`, twice: `means` and `squares`, as tensors that `at_hand` lets be computed with.

    A file in a `folder` that lies in memory would count whole: then another one on a disk takes it.

    Raises:
        DiskFull: the disk has no room for the file.
        UsageError: no folder on a disk can be written to.
    """

    def __init__(self, weights: Sequence[nn.Parameter], folder: Path) -> None:
        self._weights = list(weights)
        self._on_device = any(w.device.type != "cpu" for w in self._weights)
        self._map: mmap.mmap | None = None
        if self._on_device:
            pinned = torch.cuda.is_available()
            self.means, self.squares = (
                [torch.zeros(w.shape, dtype=w.dtype, pin_memory=pinned) for w in self._weights]
                for _kind in range(2)
            )
            return
        self._starts, end = [], 0
        for w in self._weights:
            self._starts.append(end)
            end += -(-2 * w.numel() * w.element_size() // _PAGE_BYTES) * _PAGE_BYTES
        self._ends = [*self._starts[1:], end]
        self._map = _mapped(_disk_of(folder), end)
        pairs = [self._pair(k) for k in range(len(self._weights))]
        self.means, self.squares = [p[0] for p in pairs], [p[1] for p in pairs]

    @contextmanager
    def at_hand(self, numbers: list[int]) -> Iterator[tuple[list[torch.Tensor], list[torch.Tensor]]]:
        """Means and squares of some weights, on their device; what is written into them is kept."""
        means, squares = [self.means[k] for k in numbers], [self.squares[k] for k in numbers]
        if not self._on_device:
            yield means, squares
            assert self._map is not None
            for k in numbers:
                # Written pages count while they are mapped; from here on the system may write and take them.
                self._map.madvise(mmap.MADV_DONTNEED, self._starts[k], self._ends[k] - self._starts[k])
            return
        devices = [self._weights[k].device for k in numbers]
        here = [
            [held.to(device, non_blocking=True) for held, device in zip(kind, devices, strict=True)]
            for kind in (means, squares)
        ]
        yield here[0], here[1]
        for kind, brought in zip((means, squares), here, strict=True):
            for held, new in zip(kind, brought, strict=True):
                held.copy_(new)

    def _pair(self, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        weight = self._weights[k]
        assert self._map is not None
        found = []
        for number in range(2):
            if not weight.numel():
                found.append(torch.zeros_like(weight, requires_grad=False))
                continue
            start = self._starts[k] + number * weight.numel() * weight.element_size()
            flat = torch.frombuffer(self._map, dtype=weight.dtype, count=weight.numel(), offset=start)
            # Laid out in memory as the weight is, so that the kernel takes both in one walk.
            found.append(flat.as_strided(weight.shape, weight.stride()))
        return found[0], found[1]


def _disk_of(folder: Path) -> Path:
    found = file_systems.on_disk(folder)
    if found is None:
        raise UsageError(
            _("The optimizer's state cannot lie in a file: {folder} is in memory.").format(folder=folder),
            _("Train into a folder on a disk, or give more --ram."),
        )
    return found


def _mapped(folder: Path, size: int) -> mmap.mmap:
    """Zeros from a file without a name, gone when the process is; room for all of it is taken now."""
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, max(size, _PAGE_BYTES))
        except OSError as error:
            raise DiskFull(
                _("There is no room in {folder} for the optimizer's state ({size}).").format(
                    folder=folder, size=Bytes(size)
                ),
                _("Free some space, or give more --ram."),
                path=str(folder),
            ) from error
        return mmap.mmap(file.fileno(), max(size, _PAGE_BYTES))
