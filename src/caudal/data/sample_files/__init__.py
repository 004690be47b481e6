"""Files of samples: tensors, tables, graphs. One file a format, behind the contract in `base.py`."""

from __future__ import annotations

from functools import cache

from caudal.core.registry import Registry
from caudal.data.sample_files.base import SampleReader

SAMPLE_READERS = Registry(
    "sample reader",
    "caudal.sample_readers",
    {
        "npy": "caudal.data.sample_files.npy:NpyReader",
        "npz": "caudal.data.sample_files.npz:NpzReader",
        "safetensors": "caudal.data.sample_files.safetensors:SafetensorsReader",
        "torch": "caudal.data.sample_files.torch_file:TorchReader",
        "hdf5": "caudal.data.sample_files.hdf5:Hdf5Reader",
        "table": "caudal.data.sample_files.table:TableReader",
        "graph_lines": "caudal.data.sample_files.graph_lines:GraphLinesReader",
        "tu": "caudal.data.sample_files.tu:TuReader",
        "pictures": "caudal.data.sample_files.pictures:PictureReader",
    },
)


def name_of(reader: SampleReader) -> str:
    """The name that a reader is registered by; empty for one that is not."""
    named = (name for name in SAMPLE_READERS.names() if SAMPLE_READERS.get(name) is type(reader))
    return next(named, "")


@cache
def sample_readers() -> dict[str, SampleReader]:
    """Readers by file name suffix."""
    readers: list[SampleReader] = [SAMPLE_READERS.get(name)() for name in SAMPLE_READERS.names()]
    return {suffix: reader for reader in readers for suffix in reader.suffixes}
