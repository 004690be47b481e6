"""Asks a process of its own where the arrays of an HDF5 file lie, and lends it the file's bytes.

A file that crashes, stops or fills that process cannot be read, and nothing else happens. What it answers is
not believed: places and sizes are compared with the file by whoever uses them. Its half is `hdf5_child`.
"""

from __future__ import annotations

import atexit
import json
import os
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caudal.core.errors import UnreadableFile, UsageError
from caudal.core.messages import _
from caudal.core.pipes import piece_of
from caudal.data.byte_file import ByteFile, read_bytes
from caudal.data.unreadable import unreadable

PATIENCE_SECONDS = 60.0
_MOST_MESSAGE_BYTES = 2**28
_LENGTH = struct.Struct("<q")


@dataclass(frozen=True)
class Described:
    """What a file says of itself: a record for each array, and tables of whole numbers beside them."""

    arrays: list[dict[str, Any]]
    tables: list[npt.NDArray[np.int64]]


class _Ended(Exception):
    """The process is gone, or says nothing."""


class _Child:
    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "caudal.data.sample_files.hdf5_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._held = bytearray()

    def ask(self, file: ByteFile) -> tuple[dict[str, Any], list[npt.NDArray[np.int64]]]:
        """What it says of a file.

        Raises:
            _Ended: it crashed, or took too long.
            UnreadableFile: the file's bytes cannot be had.
        """
        until = time.monotonic() + PATIENCE_SECONDS
        self._write(_LENGTH.pack(file.size_bytes))
        while True:
            message = self._message(until)
            if "read" not in message:
                break
            offset, count = message["read"]
            self._write(read_bytes(file, int(offset), int(count)))
        tables = [self._numbers(int(count), until) for count in message.pop("tables")]
        return message, tables

    def _message(self, until: float) -> dict[str, Any]:
        (length,) = _LENGTH.unpack(self._take(_LENGTH.size, until))
        message = json.loads(self._take(length, until))
        assert isinstance(message, dict)
        return message

    def _numbers(self, count: int, until: float) -> npt.NDArray[np.int64]:
        return np.frombuffer(self._take(8 * count, until), np.int64)

    def _take(self, count: int, until: float) -> bytes:
        if not 0 <= count <= _MOST_MESSAGE_BYTES:
            raise _Ended
        while len(self._held) < count:
            self._read(until)
        taken = bytes(self._held[:count])
        del self._held[:count]
        return taken

    def _read(self, until: float) -> None:
        try:
            self._held += piece_of(self._process.stdout, until)
        except (TimeoutError, EOFError):
            raise _Ended from None

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            raise _Ended from None

    @property
    def is_fresh(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def end(self) -> None:
        """Kill it; it holds nothing that anybody needs."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                assert stream is not None
                stream.close()


_child: _Child | None = None
_asking = threading.Lock()


def describe(file: ByteFile) -> Described:
    """Where the arrays of an HDF5 file lie.

    Raises:
        UnreadableFile: it is none, broken, or the library dies of it.
        UsageError: h5py is not installed.
    """
    if find_spec("h5py") is None:
        raise UsageError(
            _("{path} is HDF5, and that needs h5py, which is not installed.").format(path=file.name),
            _("Install it: pip install 'caudal[hdf5]'."),
        )
    path = Path(file.name)
    with _asking:
        message, tables = _answer(file, path)
    if "error" in message:
        raise unreadable(path, _("it is no HDF5 file, or broken ({why})").format(why=message["error"]))
    arrays = message.get("arrays")
    if not isinstance(arrays, list):
        raise unreadable(path, _("it is broken: what it says of its arrays makes no sense"))
    return Described(arrays, tables)


def _answer(file: ByteFile, path: Path) -> tuple[dict[str, Any], list[npt.NDArray[np.int64]]]:
    """What the process says; a new one is begun where the last has gone for want of work."""
    global _child
    for last in (False, True):
        if _child is None or not _child.is_fresh:
            _stop()
            _child, last = _Child(), True
        try:
            return _child.ask(file)
        except _Ended:
            _stop()
            if last:
                raise unreadable(
                    path, _("the HDF5 library ended, or never ended, while reading it")
                ) from None
        except (UnreadableFile, ValueError, KeyError, TypeError, AssertionError) as error:
            _stop()  # it waits for bytes that are not there
            if isinstance(error, UnreadableFile):
                raise
            raise unreadable(path, _("it is broken: what it says of its arrays makes no sense")) from None
    raise AssertionError


def _stop() -> None:
    global _child
    if _child is not None:
        _child.end()
    _child = None


atexit.register(_stop)
