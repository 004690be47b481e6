"""What a stream hands out: the samples of one step, as views of memory that the stream takes back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from caudal.core.errors import UsageError
from caudal.core.messages import _

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]


class Ragged:
    """Samples of different lengths. `ragged[i]` is a view of sample i, `ends` (B,) the row after each.

    They lie joined in `values` (sum of rows, …); or apart, as views of their files, and asking for `values`
    then makes a copy. All are tensors, or all arrays.
    """

    def __init__(self, values: Any, ends: Any, parts: list[Any] | None = None) -> None:
        self._values, self.ends, self._parts = values, ends, parts

    @property
    def values(self) -> Any:
        """All rows of all samples, one after the other."""
        if self._parts is None:
            return self._values
        if not isinstance(self._parts[0], np.ndarray):
            import torch

            return torch.cat(self._parts)
        return np.concatenate(self._parts)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, i: int) -> Any:
        i = range(len(self))[i]  # counts from the end, and raises IndexError
        if self._parts is not None:
            return self._parts[i]
        return self._values[(int(self.ends[i - 1]) if i else 0) : int(self.ends[i])]

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    @property
    def lengths(self) -> Any:
        """Rows of each sample, (B,)."""
        lengths = self.ends.clone() if hasattr(self.ends, "clone") else self.ends.copy()
        lengths[1:] -= self.ends[:-1]
        return lengths

    def padded(self, value: float = 0) -> tuple[Any, Any]:
        """The samples as (B, longest, …) filled up with `value`; which rows are real, (B, longest) bool."""
        lengths = self.lengths
        longest = int(lengths.max()) if len(self) else 0
        first = self[0]
        if hasattr(first, "new_full"):
            import torch

            mask = torch.arange(longest)[None, :] < lengths[:, None]
            whole = first.new_full((len(self), longest, *first.shape[1:]), value)
        else:
            mask = np.arange(longest)[None, :] < lengths[:, None]
            whole = np.full((len(self), longest, *first.shape[1:]), value, first.dtype)
        for i, one in enumerate(self):
            whole[i, : len(one)] = one
        return whole, mask


class Batch(Mapping[str, Any]):
    """The samples of one step by field name: tensors (B, …), and `Ragged` where lengths differ.

    They are views, good until the next batch is asked for; `clone()` what has to last. `samples` are the
    samples' numbers in the set (B,), a substitute's where one stands in for a broken sample. `epoch`, and
    `ends_step`: false when a batch too large for the budget comes in parts and this is not the last one.
    `stall_seconds` is how long it was waited for.
    """

    def __init__(
        self, arrays: dict[str, Array], ends: dict[str, Ints], samples: Ints, epoch: int, ends_step: bool
    ) -> None:
        self._arrays, self._ends = arrays, ends
        self.samples, self.epoch, self.ends_step = samples, epoch, ends_step
        self.stall_seconds = 0.0
        self._parts: dict[str, list[Array]] = {}
        self._released = False

    def numpy(self, name: str) -> Any:
        """The field as an array, or as a `Ragged` of arrays.

        Raises:
            UsageError: the batch was taken back.
        """
        if self._released:
            raise UsageError(
                _("“{field}” of a batch was asked for after the next batch had begun.").format(field=name),
                _("Use it before, or keep a copy (clone)."),
            )
        array = self._arrays[name]
        if name not in self._ends:
            return array
        return Ragged(array, self._ends[name], self._parts.get(name))

    def __getitem__(self, name: str) -> torch.Tensor | Ragged:
        import torch

        found = self.numpy(name)
        if name in self._parts:
            parts = [torch.from_numpy(one) for one in self._parts[name]]
            return Ragged(None, torch.from_numpy(self._ends[name]), parts)
        if isinstance(found, Ragged):
            return Ragged(torch.from_numpy(found.values), torch.from_numpy(found.ends))
        tensor: torch.Tensor = torch.from_numpy(found)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        """How many fields there are; the number of samples is `size`."""
        return len(self._arrays)

    @property
    def size(self) -> int:
        """How many samples there are."""
        return len(self.samples)

    @property
    def nbytes(self) -> int:
        """What its fields take."""
        return sum(array.nbytes for array in (*self._arrays.values(), *self._ends.values()))

    def shorten(self, rows: Mapping[str, Ints]) -> None:
        """Keep the first `rows[name]` (B,) rows of each sample of the ragged fields, and close the gaps."""
        for name, lengths in rows.items():
            if name in self._parts:
                self._parts[name] = [
                    one[:n] for one, n in zip(self._parts[name], lengths.tolist(), strict=True)
                ]
                self._ends[name] = np.cumsum(lengths)
                continue
            old = Ragged(self._arrays[name], self._ends[name])
            kept = np.concatenate([old[i][:n] for i, n in enumerate(lengths.tolist())])
            self._arrays[name] = self._arrays[name][: len(kept)]
            self._arrays[name][:] = kept
            self._ends[name] = np.cumsum(lengths)

    def span(self, name: str, first: int, last: int) -> slice:
        """Where the samples `first` … `last` - 1 lie in the joined array of the field `name`."""
        if name not in self._ends:
            return slice(first, last)
        ends = self._ends[name]
        return slice(int(ends[first - 1]) if first else 0, int(ends[last - 1]) if last else 0)

    def part(self, first: int, last: int, ends_step: bool) -> Batch:
        """The samples `first` … `last` - 1 as a batch of their own, in the same memory."""
        spans = {name: self.span(name, first, last) for name in self._arrays}
        arrays = {name: array[spans[name]] for name, array in self._arrays.items()}
        ends = {name: rows[first:last] - spans[name].start for name, rows in self._ends.items()}
        made = Batch(arrays, ends, self.samples[first:last], self.epoch, ends_step)
        made._parts = {name: found[first:last] for name, found in self._parts.items()}
        return made

    def set_apart(self, name: str) -> list[Array]:
        """Let the samples of a ragged field lie apart; the list of them, to be filled with others."""
        self._parts[name] = list(Ragged(self._arrays[name], self._ends[name]))
        return self._parts[name]

    def release(self) -> dict[str, Array]:
        """Take the batch back: from now on asking it for a field is an error. Gives the arrays it had."""
        arrays, self._arrays, self._released = self._arrays, dict.fromkeys(self._arrays, _NOTHING), True
        self._parts = {}
        return arrays


_NOTHING: Array = np.empty(0)
