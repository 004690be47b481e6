"""Regions of an image that comes in pieces: each counts once, however many pieces it lies in.

Of what is complete nothing is held but counts by bin. Held are the regions that reach to where a piece is
still to come, by bin too, and the anomalous pixels along that line. Shapes: H rows, W columns of a piece.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from caudal.tasks.anomaly.histogram import BINS, Floats

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(slots=True)
class _Open:
    """A region so far: its pixels by bin, those bins alone that have some."""

    bins: Ints
    counts: Ints

    def take(self, other: _Open) -> None:
        bins, into = np.unique(np.concatenate([self.bins, other.bins]), return_inverse=True)
        counts = np.bincount(into, np.concatenate([self.counts, other.counts]), len(bins))
        self.bins, self.counts = bins, counts.astype(np.int64)


class Regions:
    """Takes the pieces of one image from left to right and from above to below; corners join regions, too."""

    def __init__(self) -> None:
        self._open: dict[int, _Open] = {}
        self._joined: dict[int, int] = {}
        self._edge: dict[tuple[int, int], int] = {}
        self._row = self._next = 0

    def add(self, row: int, col: int, wrong_HW: Mask, bins: Ints) -> tuple[Floats, int]:
        """Take a piece at `row` and `col`: its anomalous pixels, and the bin of each, in their order.

        Gives what is complete by now: weights by bin, each region 1 in all, and how many regions those are.
        """
        import cv2

        done = self._passed(row)
        count, labels_HW = cv2.connectedComponents(wrong_HW.astype(np.uint8), connectivity=8)
        rims = (labels_HW[0], labels_HW[-1], labels_HW[:, 0], labels_HW[:, -1])
        at_rim = np.zeros(count, np.bool_)
        at_rim[np.concatenate(rims)] = True
        at_rim[0] = False
        labels = labels_HW[wrong_HW]
        inside = ~at_rim[labels]
        share = 1 / np.bincount(labels, minlength=count)[labels]
        weights = done[0] + np.bincount(bins[inside], share[inside], BINS)
        numbers = np.zeros(count, np.int64)
        for label in np.flatnonzero(at_rim):
            values, counts = np.unique(bins[labels == label], return_counts=True)
            self._next += 1
            numbers[label] = self._next
            self._open[self._next] = _Open(values, counts.astype(np.int64))
        self._join(row, col, numbers[labels_HW])
        return weights, done[1] + count - 1 - int(at_rim.sum())

    def finish(self) -> tuple[Floats, int]:
        """What was not complete yet, as no piece is to come."""
        self._edge.clear()
        return self._close()

    def _passed(self, row: int) -> tuple[Floats, int]:
        """What no piece from that row on can touch any more."""
        if row == self._row:
            return np.zeros(BINS), 0
        self._row = row
        self._edge = {place: number for place, number in self._edge.items() if place[0] >= row - 1}
        return self._close()

    def _close(self) -> tuple[Floats, int]:
        live = {self._top(number) for number in self._edge.values()}
        weights, closed = np.zeros(BINS), [number for number in self._open if number not in live]
        for number in closed:
            one = self._open.pop(number)
            weights[one.bins] += one.counts / one.counts.sum()
        self._edge = {place: self._top(number) for place, number in self._edge.items()}
        self._joined.clear()
        return weights, len(closed)

    def _top(self, number: int) -> int:
        while number in self._joined:
            number = self._joined[number]
        return number

    def _join(self, row: int, col: int, numbers_HW: Ints) -> None:
        """Bring regions together that touch across the rim above and to the left; keep the other rims."""
        height, width = numbers_HW.shape
        for c in np.flatnonzero(numbers_HW[0]):
            for away in (-1, 0, 1):
                self._unite(int(numbers_HW[0, c]), (row - 1, col + int(c) + away))
        for r in np.flatnonzero(numbers_HW[:, 0]):
            for away in (-1, 0, 1):
                self._unite(int(numbers_HW[r, 0]), (row + int(r) + away, col - 1))
        for c in np.flatnonzero(numbers_HW[-1]):
            self._edge[row + height - 1, col + int(c)] = int(numbers_HW[-1, c])
        for r in np.flatnonzero(numbers_HW[:, -1]):
            self._edge[row + int(r), col + width - 1] = int(numbers_HW[r, -1])

    def _unite(self, number: int, place: tuple[int, int]) -> None:
        other = self._edge.get(place)
        if other is None:
            return
        first, second = sorted((self._top(number), self._top(other)))
        if first != second:
            self._open[first].take(self._open.pop(second))
            self._joined[second] = first
