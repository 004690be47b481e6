"""What a stream hands out: the samples of one step, as views of memory that the stream takes back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from caudal.core.errors import UsageError
from caudal.core.messages import _

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Ragged:
    """Samples of different lengths: `values` (sum of rows, …) joined, `ends` (B,) the row after each sample.

    Both are tensors, or both arrays. `ragged[i]` is a view of sample i.
    """

    values: Any
    ends: Any

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, i: int) -> Any:
        i = range(len(self))[i]  # counts from the end, and raises IndexError
        return self.values[(int(self.ends[i - 1]) if i else 0) : int(self.ends[i])]

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
        if hasattr(self.values, "new_full"):
            import torch

            mask = torch.arange(longest)[None, :] < lengths[:, None]
            whole = self.values.new_full((len(self), longest, *self.values.shape[1:]), value)
        else:
            mask = np.arange(longest)[None, :] < lengths[:, None]
            whole = np.full((len(self), longest, *self.values.shape[1:]), value, self.values.dtype)
        whole[mask] = self.values
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
        return Ragged(array, self._ends[name]) if name in self._ends else array

    def __getitem__(self, name: str) -> torch.Tensor | Ragged:
        import torch

        found = self.numpy(name)
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

    def shorten(self, rows: Mapping[str, Ints]) -> None:
        """Keep the first `rows[name]` (B,) rows of each sample of the ragged fields, and close the gaps."""
        for name, lengths in rows.items():
            old = Ragged(self._arrays[name], self._ends[name])
            kept = np.concatenate([old[i][:n] for i, n in enumerate(lengths.tolist())])
            self._arrays[name] = self._arrays[name][: len(kept)]
            self._arrays[name][:] = kept
            self._ends[name] = np.cumsum(lengths)

    def release(self) -> dict[str, Array]:
        """Take the batch back: from now on asking it for a field is an error. Gives the arrays it had."""
        arrays, self._arrays, self._released = self._arrays, dict.fromkeys(self._arrays, _NOTHING), True
        return arrays


_NOTHING: Array = np.empty(0)
