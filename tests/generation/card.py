"""A graphics card that is not there: torch's caching allocator modelled, and traced work replayed upon it.

The model knows what the allocator does with sizes: requests rounded to 512 bytes, small ones cut from
segments of 2 MiB, middling ones from 20 MiB, large ones in segments of their own in steps of 2 MiB; the best
fit is cut in two where enough remains; neighbours that are free grow together; segments are kept, and given
back only when the cap is reached. It knows nothing of kernels' workspaces, drivers and streams.
"""

from __future__ import annotations

import bisect
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MIB = 2**20
_UNIT, _SMALL, _SMALL_SEGMENT, _MIDDLING, _MIDDLING_SEGMENT = 512, MIB, 2 * MIB, 10 * MIB, 20 * MIB


class CardFull(Exception):
    """What torch calls OutOfMemoryError."""


@dataclass(eq=False)
class Block:
    """A piece of a segment."""

    size: int
    small: bool
    free: bool = False
    before: Block | None = None
    after: Block | None = None


class Card:
    """The allocator under a cap. `reserved` is what it has taken, `used` what is in blocks that are taken."""

    def __init__(self, cap: int) -> None:
        self.cap, self.reserved, self.used, self.most_reserved, self.most_used = cap, 0, 0, 0, 0
        self._free: dict[bool, list[tuple[int, int, Block]]] = {True: [], False: []}

    def take(self, nbytes: int) -> Block:
        """Raises CardFull: past the cap, with all that lies free given back."""
        size = -(-max(nbytes, 1) // _UNIT) * _UNIT
        small = size <= _SMALL
        rows = self._free[small]
        at = bisect.bisect_left(rows, (size, 0))
        block = rows.pop(at)[2] if at < len(rows) else self._segment(size, small)
        block.free = False
        rest = block.size - size
        if rest >= _UNIT if small else rest > _SMALL:
            other = Block(rest, small, True, block, block.after)
            if block.after:
                block.after.before = other
            block.after, block.size = other, size
            self._offer(other)
        self.used += block.size
        self.most_used = max(self.most_used, self.used)
        return block

    def give(self, block: Block) -> None:
        self.used -= block.size
        for other in (block.before, block.after):
            if other is None or not other.free:
                continue
            self._withdraw(other)
            block.size += other.size
            if other is block.before:
                block.before = other.before
                if other.before:
                    other.before.after = block
            else:
                block.after = other.after
                if other.after:
                    other.after.before = block
        self._offer(block)

    def empty_cache(self) -> None:
        """Give whole segments back that lie free."""
        for rows in self._free.values():
            for row in list(rows):
                if row[2].before is None and row[2].after is None:
                    rows.remove(row)
                    self.reserved -= row[0]

    def _segment(self, size: int, small: bool) -> Block:
        whole = (
            _SMALL_SEGMENT
            if small
            else _MIDDLING_SEGMENT
            if size < _MIDDLING
            else -(-size // (2 * MIB)) * 2 * MIB
        )
        if self.reserved + whole > self.cap:
            self.empty_cache()
        if self.reserved + whole > self.cap:
            raise CardFull(f"{whole} wanted, {self.reserved} of {self.cap} reserved, {self.used} used")
        self.reserved += whole
        self.most_reserved = max(self.most_reserved, self.reserved)
        return Block(whole, small)

    def _offer(self, block: Block) -> None:
        block.free = True
        bisect.insort(self._free[block.small], (block.size, id(block), block))

    def _withdraw(self, block: Block) -> None:
        rows = self._free[block.small]
        rows.pop(bisect.bisect_left(rows, (block.size, id(block))))


Event = tuple[Literal["take", "give", "use"], int, int]


@dataclass
class Recording:
    """What a computation took, gave back and used of its weights, in order: (what, which, bytes)."""

    events: list[Event] = field(default_factory=list)
    peak: int = 0


class _Recorder(TorchDispatchMode):
    def __init__(self, held: Iterable[torch.Tensor], into: Recording) -> None:
        super().__init__()
        self.into, self.now, self.number = into, 0, 0
        self.weights = {one.untyped_storage()._cdata: one.untyped_storage().nbytes() for one in held}
        self.known: dict[int, tuple[int, int]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for one in tree_leaves(args):
            if isinstance(one, torch.Tensor) and one.untyped_storage()._cdata in self.weights:
                key = one.untyped_storage()._cdata
                self.into.events.append(("use", key, self.weights[key]))
        result = function(*args, **(kwargs or {}))
        for one in tree_leaves(result):
            if isinstance(one, torch.Tensor):
                self._meet(one.untyped_storage())
        return result

    def _meet(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self.weights or key in self.known:
            return
        self.number += 1
        self.known[key] = (self.number, storage.nbytes())
        self.into.events.append(("take", self.number, storage.nbytes()))
        self.now += storage.nbytes()
        self.into.peak = max(self.into.peak, self.now)
        weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        number, nbytes = self.known.pop(key)
        self.now -= nbytes
        self.into.events.append(("give", number, nbytes))


def record(run: Callable[[], object], held: list[torch.Tensor]) -> Recording:
    """Stands in for `memory.trace.peak_bytes`, and remembers everything."""
    made = Recording()
    with _Recorder(held, made):
        run()
    return made


Moves = Literal["stay", "pass", "widen"]


def replay(card: Card, made: Recording, moves: Moves = "stay", factor: int = 1) -> None:
    """Do the work on a card. Weights stay there; or pass through it, two layers at a time; or lie there in
    `1 / factor` of their bytes and are widened while they are used."""
    blocks: dict[int, Block] = {}
    passing: list[tuple[int, Block]] = []
    for what, key, nbytes in made.events:
        if what == "take":
            blocks[key] = card.take(nbytes)
        elif what == "give":
            card.give(blocks.pop(key))
        elif moves != "stay" and key not in [one for one, _block in passing]:
            most = 2 if moves == "pass" else 1
            # A layer is its weight and its bias.
            while len(passing) >= 2 * most:
                card.give(passing.pop(0)[1])
            if moves == "widen":
                again = card.take(nbytes // factor)  # narrowed again when the layer has worked
                card.give(again)
            passing.append((key, card.take(nbytes)))
    for block in (*blocks.values(), *(block for _key, block in passing)):
        card.give(block)


def place(card: Card, sizes: Iterable[int]) -> list[Block]:
    """Put weights on a card, tensor by tensor."""
    return [card.take(size) for size in sizes]
