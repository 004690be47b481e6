"""Several processes that learn one model together: who is who, sums over all, one word for all.

They are started by `torchrun` (or whoever sets RANK and WORLD_SIZE). Each holds the whole model and takes its
share of every batch; gradients are added up, so that all take the same step. It knows no data and no model,
and splits no weights: what does not fit into one process does not fit here either.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist

from caudal.core.errors import CaudalError, from_record, to_record
from caudal.memory import vram

T = TypeVar("T")
_BUCKET_ELEMENTS = 1 << 21  # of what is sent at once: a copy of it is held meanwhile
_PATIENCE = timedelta(days=2)  # the first process scores while the others wait


@dataclass(frozen=True)
class Ranks:
    """This process's number among `count`. With one process nothing is sent."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes: checkpoints, events, the model."""
        return self.rank == 0

    @torch.no_grad()
    def add_up(self, tensors: Iterable[torch.Tensor]) -> None:
        """Put the sum over all processes into each tensor; floating point, the same ones everywhere."""
        if self.count == 1:
            return
        for bucket in _buckets(list(tensors)):
            flat_N = torch.cat([tensor.detach().reshape(-1) for tensor in bucket])
            dist.all_reduce(flat_N)
            for tensor, part_N in zip(bucket, torch.split(flat_N, [t.numel() for t in bucket]), strict=True):
                tensor.copy_(part_N.view(tensor.shape))

    @torch.no_grad()
    def average(self, tensors: Iterable[torch.Tensor]) -> None:
        """Put the mean over all processes into each tensor."""
        if self.count == 1:
            return
        mine = list(tensors)
        self.add_up(mine)
        for tensor in mine:
            tensor.div_(self.count)

    def sum(self, value: float) -> float:
        """The sum of a number over all processes."""
        return self.sums((value,))[0]

    def sums(self, values: Sequence[float]) -> list[float]:
        """The sum of each number over all processes."""
        if self.count == 1:
            return list(values)
        total_N = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total_N)
        return total_N.tolist()

    def any(self, here: bool) -> bool:
        """Whether it is so in any process."""
        return self.sum(float(here)) > 0

    def most(self, value: float) -> float:
        """The largest number of all processes."""
        if self.count == 1:
            return value
        most_1 = torch.tensor([value], dtype=torch.float64)
        dist.all_reduce(most_1, dist.ReduceOp.MAX)
        return float(most_1)

    def told(self, value: T | None) -> T:
        """What the first process says; the others' `value` does not count."""
        if self.count == 1:
            return cast(T, value)
        said: list[T | None] = [value if self.first else None]
        dist.broadcast_object_list(said, src=0)
        return cast(T, said[0])

    def told_by(self, work: Callable[[], T]) -> T:
        """What `work` gives in the first process, which alone does it.

        Raises:
            CaudalError: it did there. All processes raise it: who waits for one that has ended waits long.
        """
        found, error = None, None
        if self.first:
            try:
                found = work()
            except CaudalError as raised:
                error = raised
        record = self.told(to_record(error) if error else {})
        if error is not None:
            raise error
        if record:
            raise from_record(record)
        return self.told(found)


ALONE = Ranks()


def present() -> Ranks:
    """Who this process is among those that have joined."""
    if dist.is_available() and dist.is_initialized():
        return Ranks(dist.get_rank(), dist.get_world_size())
    return ALONE


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Meet the others inside the `with`, if there are any; each has one card where `device` is `cuda`."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield present()
        return
    if device == "cuda":
        torch.cuda.set_device(vram.card())
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield present()
    finally:
        dist.destroy_process_group()


def _buckets(tensors: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    held: list[torch.Tensor] = []
    elements = 0
    for tensor in tensors:
        if held and (elements + tensor.numel() > _BUCKET_ELEMENTS or tensor.dtype != held[0].dtype):
            yield held
            held, elements = [], 0
        held.append(tensor)
        elements += tensor.numel()
    if held:
        yield held
