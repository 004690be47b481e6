"""Which bytes of a `torch.save` file decide what it holds; it unpickles nothing."""

from __future__ import annotations

import re

from caudal.data.byte_file import ByteFile, read_bytes
from caudal.data.sample_files.free_values import free_values
from caudal.data.sample_files.likeness import Likeness, Span, likeness_of
from caudal.data.sample_files.zip_layout import entry_name, local_name, zip_layout
from caudal.data.sample_files.zip_records import open_zip

_VALUES = re.compile(r"data/\d+|\.data/serialization_id")
_PICKLE = "data.pkl"


def torch_likeness(file: ByteFile) -> Likeness | None:
    """Of a file that was understood: all but values, checksums of these, and what the archive is called.

    `torch.save` calls an archive as the file, so that no two of them would be alike.
    """
    with open_zip(file) as archive:
        layout = zip_layout(file, archive)
    if layout is None:
        return None
    same: list[Span] = []
    checks = []
    for one in layout.records:
        called, slash, name = one.name.partition("/")
        if not slash:
            return None
        if len(one.name.encode()) != one.name_bytes:
            return None
        count = len(called.encode())
        same += [(at, at + count) for at in (entry_name(one), local_name(one))]
        if _VALUES.fullmatch(name):
            layout.free.append(one.values)
            layout.free_checksum(one)
        elif name == _PICKLE:
            begin, end = one.values
            free = free_values(read_bytes(file, begin, end - begin))
            if free:
                layout.free += [(begin + first, begin + last) for first, last in free]
                layout.free_checksum(one)
                checks.append(layout.check(one))
    return likeness_of(file.size_bytes, layout.free, same, checks)
