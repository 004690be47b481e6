"""A column of texts for very many samples: few bytes each, never a Python object each.

Texts that come again and again are kept once, with a number for each sample; where nearly all differ they lie
behind each other as bytes.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt

from caudal.data.index import Names
from caudal.data.sample_files.base import Ints
from caudal.data.sample_listing import texts

_MOST_KINDS = 1 << 16


class TextColumn(Sequence[str]):
    """Texts in order. Made of `kinds` and the number of each in them, or of packed `names`."""

    def __init__(
        self, kinds: tuple[str, ...], codes: npt.NDArray[np.int64], names: Names | None = None
    ) -> None:
        self._kinds, self._codes, self._names = kinds, codes, names

    def __len__(self) -> int:
        return len(self._names) if self._names else len(self._codes)

    @overload
    def __getitem__(self, k: int) -> str: ...
    @overload
    def __getitem__(self, k: slice) -> list[str]: ...
    def __getitem__(self, k: int | slice) -> str | list[str]:
        if isinstance(k, slice):
            return [self[j] for j in range(*k.indices(len(self)))]
        k = range(len(self))[k]
        return self._names[k] if self._names else self._kinds[int(self._codes[k])]

    def __iter__(self) -> Iterator[str]:
        if self._names:
            return texts(self._names)
        return (self._kinds[code] for code in self._codes.tolist())

    def coded(self) -> tuple[Ints, tuple[str, ...]]:
        """The number of each text among all that differ, and these in their order."""
        kinds = tuple(sorted(set(self)))
        number = {text: k for k, text in enumerate(kinds)}
        if self._names:
            return np.fromiter((number[text] for text in self), np.int64, len(self)), kinds
        return np.array([number.get(text, 0) for text in self._kinds], np.int64)[self._codes], kinds

    def numbers(self) -> npt.NDArray[np.float64]:
        """The texts as numbers, NaN where one is empty.

        Raises:
            ValueError: one is no number.
        """
        if self._names:
            return np.fromiter((_number(text) for text in self), np.float64, len(self))
        codes, kinds = self.coded()
        found: npt.NDArray[np.float64] = np.array([_number(text) for text in kinds])[codes]
        return found

    def taken(self, order: Ints) -> TextColumn:
        """The texts at the places `order`."""
        if self._names:
            return TextColumn((), np.zeros(0, np.int64), Names.pack(self[k] for k in order.tolist()))
        return TextColumn(self._kinds, self._codes[order])

    @property
    def nbytes(self) -> int:
        """About what it holds."""
        if self._names:
            return self._names.blob.nbytes + self._names.ends.nbytes
        return self._codes.nbytes + sum(map(len, self._kinds))


class TextColumnMaker:
    """Takes one text after the other."""

    def __init__(self) -> None:
        self._number: dict[str, int] = {}
        self._codes = array("i")
        self._blob, self._ends = bytearray(), array("q")

    def add(self, text: str) -> None:
        """The next text."""
        if self._ends or len(self._number) > _MOST_KINDS:
            if not self._ends:
                self._unpack()
            self._blob += text.encode("utf-8", "surrogateescape")
            self._ends.append(len(self._blob))
            return
        self._codes.append(self._number.setdefault(text, len(self._number)))

    def made(self) -> TextColumn:
        """The column."""
        if self._ends:
            names = Names(np.frombuffer(bytes(self._blob), np.uint8), np.array(self._ends, np.int64))
            return TextColumn((), np.zeros(0, np.int64), names)
        codes = np.array(self._codes, np.min_scalar_type(max(1, len(self._number))))
        return TextColumn(tuple(self._number), codes)

    def _unpack(self) -> None:
        """From numbers to the texts themselves."""
        kinds = list(self._number)
        for code in self._codes:
            self._blob += kinds[code].encode("utf-8", "surrogateescape")
            self._ends.append(len(self._blob))
        self._number, self._codes = {}, array("i")


def _number(text: str) -> float:
    return float(text) if text else float("nan")
