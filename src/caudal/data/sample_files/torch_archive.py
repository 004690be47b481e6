"""A file of `torch.save`: its objects without their values, and where the values of each tensor lie.

PyTorch itself unpickles, with `weights_only`: a file cannot run code. It builds tensors on the device “meta”,
which hold no memory, so that a file may claim what it likes; claims are compared with the archive's records.
"""

from __future__ import annotations

import importlib
import re
import threading
import zipfile
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from caudal.core.errors import UnreadableFile
from caudal.core.messages import _
from caudal.data.byte_file import ByteFile, FileObject
from caudal.data.sample_files.arrangement import bytes_of, claimed_bytes
from caudal.data.sample_files.array_stream import Stream, fill
from caudal.data.sample_files.base import Array
from caudal.data.sample_files.number_types import named_dtype
from caudal.data.sample_files.zip_records import checked_records, open_zip
from caudal.data.unreadable import unreadable

if TYPE_CHECKING:
    import torch

_LOCAL_HEADER_BYTES = 30
_MOST_PICKLE_BYTES = 1 << 30
_REFUSED = re.compile(r"GLOBAL ([\w.]+)")
_GRAPH_CLASSES = b"torch_geometric"
# PyTorch keeps one list of classes that may be unpickled for the whole process.
_allowing = threading.Lock()


@dataclass(frozen=True, slots=True)
class Laid:
    """A tensor in a file. `strides` count entries, `stored` is the dtype there, `dtype` the one to give."""

    stored: np.dtype[Any]
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    @property
    def as_in_memory(self) -> bool:
        """Whether its bytes are those of an array in C order."""
        step = 1
        for count, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if count != 1 and stride != step:
                return 0 in self.shape and self.stored == self.dtype
            step *= count
        return self.stored == self.dtype

    @property
    def span_bytes(self) -> int:
        """Bytes from its first entry to behind its last."""
        if 0 in self.shape:
            return 0
        last = sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))
        return (last + 1) * self.stored.itemsize

    def read(self, stream: Stream, into: Array) -> None:
        """Fill `into`, of `shape` and `dtype`, from the file's bytes.

        Raises:
            EOFError: the file ends before.
        """
        stream.seek(self.offset)
        if self.as_in_memory:
            fill(stream, bytes_of(into))
            return
        span = bytearray(self.span_bytes)
        fill(stream, memoryview(span))
        strides = tuple(stride * self.stored.itemsize for stride in self.strides)
        into[...] = np.ndarray(self.shape, self.stored, span, 0, strides) if span else 0


class TorchArchive:
    """The unpickled `content` of a file, and `laid` for each of its tensors.

    `object_bytes` is about what all of it holds in memory.
    """

    def __init__(self, file: ByteFile) -> None:
        """Unpickle the objects of `file`; no value of a tensor is read.

        Raises:
            UnreadableFile: no file of `torch.save`, broken, or of objects that are not tensors.
        """
        self._path, self._size_bytes = Path(file.name), file.size_bytes
        with open_zip(file) as archive:
            records = checked_records(file, archive)
            pickled = self._check(archive, records)
        self._records = sorted(records.values(), key=lambda record: record.header_offset)
        self._headers = [record.header_offset for record in self._records]
        self._dtypes: dict[str, np.dtype[Any]] = {}
        self.object_bytes = 8 * len(pickled) + 1024 * len(records)
        self.content = self._load(file, _GRAPH_CLASSES in pickled)

    def _check(self, archive: zipfile.ZipFile, records: dict[str, zipfile.ZipInfo]) -> bytes:
        """The pickle of the archive, after seeing that it is one that this class can judge."""
        resave = _("Load it with PyTorch and save its tensors again with torch.save.")
        by_end = {name.partition("/")[2]: record for name, record in records.items()}
        if "data.pkl" not in by_end or "constants.pkl" in by_end:
            raise unreadable(self._path, _("it is a zip archive, but not of tensors"), resave)
        if any(record.compress_type != zipfile.ZIP_STORED for record in records.values()):
            raise unreadable(self._path, _("its records are compressed, as torch.save does not"), resave)
        if "byteorder" in by_end and archive.read(by_end["byteorder"]) != b"little":
            raise unreadable(self._path, _("its numbers are not little-endian"), resave)
        if by_end["data.pkl"].file_size > _MOST_PICKLE_BYTES:
            raise unreadable(self._path, _("its list of objects is larger than 1 GiB"), resave)
        return archive.read(by_end["data.pkl"])

    def _load(self, file: ByteFile, graphs: bool) -> Any:
        import torch

        with ExitStack() as stack:
            if graphs:
                stack.enter_context(_graph_classes(self._path))
            try:
                stream = BufferedReader(FileObject(file))
                return torch.load(stream, map_location="meta", weights_only=True)
            except UnreadableFile:
                raise
            except Exception as error:  # PyTorch raises of every kind on broken files
                raise self._refused(error) from error

    def _refused(self, error: Exception) -> UnreadableFile:
        if found := _REFUSED.search(str(error)):
            return unreadable(
                self._path,
                _("it holds “{name}”, and only tensors and numbers are loaded").format(name=found[1]),
                _('Save tensors alone: torch.save({"x": x, "y": y}, path).'),
            )
        return unreadable(
            self._path,
            _("PyTorch cannot load it ({why})").format(why=f"{type(error).__name__}: {error}"[:200]),
        )

    def laid(self, name: str, tensor: torch.Tensor) -> Laid:
        """Where the values of `tensor` lie, called `name` in messages.

        Raises:
            UnreadableFile: not dense numbers, or they would lie outside of its record in the archive.
        """
        import torch

        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_conj() or tensor.is_neg():
            raise unreadable(
                self._path,
                _("“{name}” is no plain tensor").format(name=name),
                _("Save it dense: x.to_dense(), x.dequantize() or x.resolve_conj()."),
            )
        dtype = self._dtype(name, str(tensor.dtype).removeprefix("torch."))
        shape, strides, storage = tuple(tensor.shape), tensor.stride(), tensor.untyped_storage()
        claimed_bytes(self._path, name, shape, dtype.itemsize, self._size_bytes)
        start = getattr(storage, "_checkpoint_offset", None)
        if start is None:
            raise unreadable(self._path, _("“{name}” was saved without its values").format(name=name))
        laid = Laid(dtype, dtype, shape, strides, start + tensor.storage_offset() * dtype.itemsize)
        if laid.span_bytes:
            self._check_place(name, start, laid.offset + laid.span_bytes)
        return laid

    def _check_place(self, name: str, start: int, end: int) -> None:
        """Compare where the values of a storage start, and a tensor in it ends, with the archive's records.

        Raises:
            UnreadableFile: no record has its values there, or it has fewer.
        """
        record = self._records[max(0, bisect_left(self._headers, start) - 1)]
        after_header = record.header_offset + _LOCAL_HEADER_BYTES + len(record.filename.encode())
        following = bisect_left(self._headers, start)
        until = self._headers[following] if following < len(self._headers) else self._size_bytes
        if not after_header <= start <= until - record.file_size:
            raise unreadable(
                self._path,
                _("“{name}” is not where torch.save would have put it").format(name=name),
                _("Load it with PyTorch and save its tensors again with torch.save."),
            )
        if end > start + record.file_size:
            raise unreadable(self._path, _("“{name}” claims more values than there are").format(name=name))

    def _dtype(self, name: str, called: str) -> np.dtype[Any]:
        if called not in self._dtypes:
            self._dtypes[called] = named_dtype(self._path, name, called)
        return self._dtypes[called]


@contextmanager
def _graph_classes(path: Path) -> Iterator[None]:
    """Let PyTorch unpickle the graphs of PyTorch Geometric."""
    import torch

    try:
        data = importlib.import_module("torch_geometric.data.data")
        storage = importlib.import_module("torch_geometric.data.storage")
    except ImportError:
        raise unreadable(
            path,
            _("it holds graphs of PyTorch Geometric, which is not installed"),
            _("Install it: pip install 'caudal[graph]'."),
        ) from None
    classes = [data.Data, data.DataEdgeAttr, data.DataTensorAttr, storage.GlobalStorage]
    with _allowing, torch.serialization.safe_globals(classes):
        yield
