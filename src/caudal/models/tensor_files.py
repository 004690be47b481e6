"""Reading tensors of a file one by one, straight to where they stay: final place, final type, nothing beside.

The library maps a file and copies out of the mapping: while it converts, the file's pages and the new tensors
are both held. Here a tensor's memory is taken in its final type, and filled through a scratch buffer of a few
mebibytes; pages that were read are given back to the system. So the peak of a load is the target's bytes and
the scratch. The format is safetensors; archives of torch (`.bin`, `.pt`) are opened with `weights_only` and
mapped. Which model the tensors belong to is not known here.
"""

from __future__ import annotations

import json
import mmap
import os
import pickle
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Protocol

import torch

from caudal.core.confined import check_path, open_plain
from caudal.core.errors import BadModel
from caudal.core.files import write_whole
from caudal.core.messages import _

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
SCRATCH_BYTES = 8 * 2**20
_MOST_HEADER_BYTES = 100 * 2**20  # the format's own limit
_SHUFFLED = (".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor in a file: its type and shape there, and the bytes `begin` to `end` that hold it."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int

    def rows(self, part: int, parts: int) -> Entry:
        """One of `parts` equal pieces along the first dimension, which lie one after the other."""
        assert self.shape[0] % parts == 0
        assert 0 <= part < parts
        piece = (self.end - self.begin) // parts
        return Entry(
            self.name, self.dtype, (self.shape[0] // parts, *self.shape[1:]),
            self.begin + part * piece, self.begin + (part + 1) * piece,
        )  # fmt: skip


class TensorSource(Protocol):
    """A file of tensors that is open."""

    path: Path
    entries: dict[str, Entry]

    def fill(self, entry: Entry, into: torch.Tensor) -> None:
        """Write the tensor into `into`: same shape, any floating-point type, any device."""
        ...

    def close(self) -> None:
        """Give the file back; safe to call twice."""
        ...


def open_tensors(path: Path) -> TensorSource:
    """Open a file of tensors by its suffix.

    Raises:
        BadModel: missing, truncated, hostile, or a pickle that wants to run code.
    """
    return TorchArchive(path) if path.suffix in _SHUFFLED else SafetensorsFile(path)


class SafetensorsFile:
    """A safetensors file; its header is checked against its size before anything is believed."""

    def __init__(self, path: Path) -> None:
        """Open `path` and read its header.

        Raises:
            BadModel: missing, truncated, or a header that does not hold.
        """
        self.path = path
        try:
            self._fd = open_plain(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _bad(path, error.strerror or str(error)) from None
        try:
            self.entries = _entries(path, self._fd)
        except BaseException:
            self.close()
            raise
        self._scratch = torch.empty(0, dtype=torch.uint8)

    def fill(self, entry: Entry, into: torch.Tensor) -> None:
        """See `TensorSource.fill`. The pages read are given back to the system.

        Raises:
            BadModel: the file ends before it should.
        """
        assert tuple(into.shape) == entry.shape, f"{entry.name}: {entry.shape} into {tuple(into.shape)}"
        flat = into.view(-1)
        direct = into.device.type == "cpu" and into.dtype == entry.dtype and into.is_contiguous()
        if direct:
            self._read(entry.begin, flat.view(torch.uint8) if flat.numel() else flat)
        else:
            step = SCRATCH_BYTES // entry.dtype.itemsize
            for first in range(0, flat.numel(), step):
                count = min(step, flat.numel() - first)
                raw = self._buffer(into.device)[: count * entry.dtype.itemsize]
                self._read(entry.begin + first * entry.dtype.itemsize, raw)
                flat[first : first + count].copy_(raw.view(entry.dtype))
        begin = entry.begin & ~(mmap.PAGESIZE - 1)
        os.posix_fadvise(self._fd, begin, entry.end - begin, os.POSIX_FADV_DONTNEED)

    def mapped(self, entry: Entry) -> torch.Tensor:
        """The tensor as it lies in the page cache: no memory of ours, and never to be written to."""
        size = os.fstat(self._fd).st_size
        view = mmap.mmap(self._fd, size, prot=mmap.PROT_READ | mmap.PROT_WRITE, flags=mmap.MAP_PRIVATE)
        count = prod(entry.shape)
        if not count:
            return torch.empty(entry.shape, dtype=entry.dtype)
        return torch.frombuffer(view, dtype=entry.dtype, count=count, offset=entry.begin).view(entry.shape)

    def close(self) -> None:
        """See `TensorSource.close`."""
        if (fd := self._fd) >= 0:
            self._fd = -1
            os.close(fd)

    def _buffer(self, device: torch.device) -> torch.Tensor:
        if not self._scratch.numel():
            # Pinned where it is sent to a device from, so that the copy needs no second buffer.
            self._scratch = torch.empty(SCRATCH_BYTES, dtype=torch.uint8, pin_memory=device.type == "cuda")
        return self._scratch

    def _read(self, offset: int, into: torch.Tensor) -> None:
        view = memoryview(into.numpy().data).cast("B") if into.numel() else memoryview(b"")
        done = 0
        while done < len(view):
            count = os.preadv(self._fd, [view[done:]], offset + done)
            if count == 0:
                raise _bad(self.path, _("it ends before byte {end}").format(end=offset + len(view)))
            done += count


def read_archive(path: Path) -> Any:
    """What `torch.save` wrote, mapped; nothing in it is run.

    Raises:
        BadModel: it holds more than tensors and plain containers.
        OSError, RuntimeError, ValueError, EOFError, KeyError: missing, or no such archive.
    """
    check_path(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        raise BadModel(
            _("{path} holds more than weights: opening it could run code, so it was not opened.").format(
                path=path
            ),
            _("Ask its author for a state dict or a .safetensors file."),
        ) from None


class TorchArchive:
    """A state dict as `torch.save` writes it, mapped; only tensors in dicts of dicts, nothing that could run.

    Names of nested dicts are joined by points.
    """

    def __init__(self, path: Path) -> None:
        """Open `path`.

        Raises:
            BadModel: missing, no archive of torch, or one that holds more than tensors.
        """
        self.path = path
        try:
            tree = read_archive(path)
        except (OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
            raise _bad(path, str(error).splitlines()[0]) from None
        self._tensors: dict[str, torch.Tensor] = {}
        self._flatten(tree, "")
        self.entries = {
            name: Entry(name, tensor.dtype, tuple(tensor.shape), 0, tensor.numel() * tensor.element_size())
            for name, tensor in self._tensors.items()
        }

    def fill(self, entry: Entry, into: torch.Tensor) -> None:
        """See `TensorSource.fill`."""
        whole = self._tensors[entry.name]
        row = whole.numel() * whole.element_size() // max(1, whole.shape[0]) if whole.ndim else 0
        first = entry.begin // row if row else 0
        into.copy_(whole[first : first + entry.shape[0]] if whole.ndim else whole)

    def close(self) -> None:
        """See `TensorSource.close`."""
        self._tensors = {}

    def _flatten(self, tree: Any, prefix: str) -> None:
        if isinstance(tree, torch.Tensor):
            self._tensors[prefix] = tree
        elif isinstance(tree, dict):
            for key, value in tree.items():
                self._flatten(value, f"{prefix}.{key}" if prefix else str(key))
        else:
            raise _bad(self.path, _("it holds something that is no tensor"))


def _entries(path: Path, fd: int) -> dict[str, Entry]:
    size = os.fstat(fd).st_size
    length = int.from_bytes(os.pread(fd, 8, 0), "little")
    if size < 8 or length > min(size - 8, _MOST_HEADER_BYTES):
        raise _bad(
            path, _("its header claims {length} bytes and it has {size}").format(length=length, size=size)
        )
    try:
        header = json.loads(os.pread(fd, length, 8))
        header.pop("__metadata__", None)
        found = {name: _entry(name, values, 8 + length) for name, values in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        why = _("its header is broken ({why})").format(why=str(error)[:100])
        raise _bad(path, why) from None
    ends = 8 + length
    for entry in sorted(found.values(), key=lambda one: (one.begin, one.end)):
        if entry.begin != ends or entry.end - entry.begin != prod(entry.shape) * entry.dtype.itemsize:
            raise _bad(path, _("the bytes of “{name}” are not where it says").format(name=entry.name))
        ends = entry.end
    if ends != size:
        raise _bad(path, _("its header needs {ends} bytes and it has {size}").format(ends=ends, size=size))
    return found


def _entry(name: str, values: dict[str, Any], data: int) -> Entry:
    begin, end = (int(offset) for offset in values["data_offsets"])
    shape = tuple(int(side) for side in values["shape"])
    if min(shape, default=0) < 0 or begin < 0 or end < begin:
        raise ValueError(name)
    return Entry(name, DTYPES[values["dtype"]], shape, data + begin, data + end)


def _bad(path: Path, why: str) -> BadModel:
    return BadModel(
        _("{path} holds no weights that can be read: {why}.").format(path=path, why=why.rstrip(".")),
        _("Fetch the file again, or write it again with `caudal convert`."),
        path=str(path),
    )


def write_converted(path: Path, source: TensorSource, dtype: torch.dtype) -> None:
    """Write all tensors of `source` as safetensors, floating-point ones in `dtype`; a scratch is held.

    Raises:
        BadModel: `source` ends early.
        DiskFull: no space was left; nothing is left under `path`.
    """
    names = {value: name for name, value in DTYPES.items()}
    types = {
        entry.name: dtype if entry.dtype.is_floating_point else entry.dtype
        for entry in source.entries.values()
    }
    order = sorted(source.entries.values(), key=lambda entry: (-types[entry.name].itemsize, entry.name))
    header, end = {}, 0
    for entry in order:
        begin, end = end, end + prod(entry.shape) * types[entry.name].itemsize
        header[entry.name] = {
            "dtype": names[types[entry.name]], "shape": list(entry.shape), "data_offsets": [begin, end],
        }  # fmt: skip
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)

    def write(part: Path) -> None:
        with part.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for entry in order:
                for piece in _pieces(entry):
                    values = torch.empty(piece.shape, dtype=types[entry.name])
                    source.fill(piece, values)
                    if values.numel():
                        file.write(values.view(-1).view(torch.uint8).numpy().data)

    write_whole(path, write)


def _pieces(entry: Entry) -> list[Entry]:
    """The tensor cut along its first dimension into pieces of about a scratch."""
    rows = entry.shape[0] if entry.shape else 1
    nbytes = entry.end - entry.begin
    parts = next((n for n in range(1, rows + 1) if rows % n == 0 and nbytes / n <= SCRATCH_BYTES), rows)
    return [entry.rows(part, parts) for part in range(parts)] if entry.shape and parts else [entry]
