"""Which sample comes when: a pure function of (seed, epoch, position).

Chunks are visited in the order of a Feistel permutation, which needs no memory and no shuffling pass.
The chunk visited at turn t hands out its patches over the turns t … t + k, evenly but at random, so k
chunks are open at once and each batch is drawn across them. Threads, ranks and resumes change who does
the work, never what is done: the state is one number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from caudal.core.seeds import generator
from caudal.data.chunks import Chunks, Cutter
from caudal.data.permutation import permute

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class EpochOrder:
    """One epoch, laid out.

    `chunks` are in the order in which they are visited. Sample s of the epoch is patch `patch[s]` of
    visit `visit[s]`.
    """

    epoch: int
    chunks: Chunks
    visit: Ints
    patch: Ints

    def __len__(self) -> int:
        return len(self.visit)


def order(cutter: Cutter, epoch: int, open_chunks: int) -> EpochOrder:
    """Lay out an epoch in which about `open_chunks` chunks are open at once."""
    cut = cutter.cut(epoch)
    turns = permute(np.arange(len(cut), dtype=np.int64), len(cut), cutter.seed, epoch)
    by_turn = np.argsort(turns, kind="stable")
    chunks = Chunks(
        *(column[by_turn] for column in (cut.image, cut.row, cut.col, cut.height, cut.width, cut.patches))
    )
    visit = np.repeat(np.arange(len(chunks)), chunks.patches)
    patch = np.arange(len(visit)) - np.repeat(np.cumsum(chunks.patches) - chunks.patches, chunks.patches)
    # Evenly over the k turns, each at a random place of its own share.
    jitter = generator(cutter.seed, "turns", epoch).random(len(visit))
    due = visit + open_chunks * (patch + jitter) / chunks.patches[visit]
    by_due = np.argsort(due, kind="stable")
    return EpochOrder(epoch, chunks, visit[by_due], patch[by_due])


def slots_needed(most_patches: list[int], open_chunks: int, batch: int) -> int:
    """Patches that wait at once, at the most, so that the next batch can always be completed.

    A chunk of n patches that was opened a turns ago still holds at most n·(1 - a/k) + 1 of them; the
    worst order has the largest chunks one after the other.
    """
    count = open_chunks + 1
    largest = most_patches[:count]
    waiting = sum(n * (1 - a / open_chunks) + 1 for a, n in enumerate(largest))
    return int(waiting) + batch + 1


def origins(
    seed: int, epoch: int, chunks: Chunks, visit: int, patch_px: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Row and column of each patch of a visit, relative to its chunk.

    Places are uniform over the chunk and a quarter patch beyond, then brought back inside: without that
    the pixels at a border would be seen less often than the others.
    """
    draw = generator(
        seed, "patch", epoch, int(chunks.image[visit]), int(chunks.row[visit]), int(chunks.col[visit])
    )
    count = int(chunks.patches[visit])
    rows = _places(draw, count, int(chunks.height[visit]), patch_px)
    return rows, _places(draw, count, int(chunks.width[visit]), patch_px)


def _places(draw: np.random.Generator, count: int, size: int, patch_px: int) -> npt.NDArray[np.int64]:
    room = max(0, size - patch_px)
    beyond = min(patch_px // 4, room)
    return np.clip(draw.integers(-beyond, room + beyond + 1, count), 0, room)
