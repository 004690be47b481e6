"""Zip archives that are sent: every claim is checked before a byte is unpacked, and counted while it is.

All of an archive is taken, or nothing of it.
"""

from __future__ import annotations

import shutil
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from caudal.core.errors import DataError
from caudal.core.files import disk_full, is_disk_full
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.data.locations import open_bytes
from caudal.data.sample_files.zip_records import checked_records, open_zip
from caudal.service.problems import Refused
from caudal.service.serving import Limits
from caudal.service.uploads import SPARE_BYTES, clean_name

_PIECE_BYTES = 2**20
_MOST_DIRECTORY_BYTES = 64 * 2**20
_END = b"PK\x05\x06"
_NO_SAMPLES = ("__MACOSX",)
_NESTED = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".tar", ".zst")


def unpack(
    archive: Path, folder: Path, limits: Limits, room_bytes: int, look: Callable[[Path], object]
) -> list[str]:
    """Unpack into `folder`, which is new, and `look` at each file; the names, in order.

    `room_bytes` is what they may be together.

    Raises:
        Refused: 413 too much, 415 an archive in the archive, 422 a name that is none, or is a folder too.
        DataError: it is broken, or encrypted.
        DiskFull: there is no room.
    """
    _refuse_directory(archive)
    file = open_bytes(archive)
    try:
        folder.mkdir(mode=0o700)
        with open_zip(file) as opened:
            records = checked_records(file, opened)
            names = _wanted(records, archive.stat().st_size, limits)
            _refuse_size(sum(record.file_size for record in names.values()), room_bytes, folder)
            for name, record in names.items():
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                _write(opened, record, target)
                look(target)
        return list(names)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if is_disk_full(error):
            raise disk_full(Path("uploads")) from None
        raise
    finally:
        file.close()


def _refuse_directory(archive: Path) -> None:
    """The directory is read whole: before that, look how large it says that it is."""
    size_bytes = archive.stat().st_size
    with archive.open("rb") as file:
        file.seek(max(0, size_bytes - 65_557))
        tail = file.read()
    place = tail.rfind(_END)
    if place < 0 or len(tail) - place < 22:
        raise DataError(_("This is no zip archive, or its end is missing."), _("Send it again, whole."))
    (directory_bytes,) = struct.unpack("<L", tail[place + 12 : place + 16])
    # In the large form the number stands elsewhere; the file itself bounds it.
    if min(directory_bytes, size_bytes) > _MOST_DIRECTORY_BYTES:
        raise _too_much(_("Its list of files is too long."))


def _wanted(
    records: dict[str, zipfile.ZipInfo], size_bytes: int, limits: Limits
) -> dict[str, zipfile.ZipInfo]:
    if len(records) > limits.archive_files:
        raise _too_much(_("It holds {count} files.").format(count=len(records)))
    wanted: dict[str, zipfile.ZipInfo] = {}
    total = 0
    for name, record in records.items():
        if record.is_dir() or name.split("/")[0] in _NO_SAMPLES or name.split("/")[-1].startswith("."):
            continue
        mode = record.external_attr >> 16
        if mode and not stat.S_ISREG(mode) and stat.S_IFMT(mode):
            raise Refused(422, "name", _("It holds a link or a device."), _("Leave it out."))
        if name.lower().endswith(_NESTED):
            raise Refused(415, "format", _("It holds another archive."), _("Unpack that first."))
        wanted[clean_name(name)] = record
        total += record.file_size
    for name in wanted:
        if any(above.as_posix() in wanted for above in PurePosixPath(name).parents):
            raise Refused(
                422, "name", _("A name in it is a file and a folder."), _("Give one of them another name.")
            )
    if not wanted:
        raise DataError(_("The archive holds no file."), _("Put the files themselves into it."))
    if total > max(size_bytes, 2**20) * limits.archive_ratio:
        raise _too_much(_("It would unpack to {bytes}.").format(bytes=Bytes(total)))
    return wanted


def _refuse_size(total: int, room_bytes: int, folder: Path) -> None:
    if total > room_bytes:
        raise _too_much(
            _("It would unpack to {bytes}, and {room} are left.").format(
                bytes=Bytes(total), room=Bytes(room_bytes)
            )
        )
    if total + SPARE_BYTES > shutil.disk_usage(folder).free:
        raise disk_full(Path("uploads"))


def _write(opened: zipfile.ZipFile, record: zipfile.ZipInfo, target: Path) -> None:
    count = 0
    with opened.open(record) as source, target.open("xb") as file:
        while piece := source.read(_PIECE_BYTES):
            count += len(piece)
            if count > record.file_size:
                raise _too_much(_("It unpacks to more than it says."))
            file.write(piece)


def _too_much(fact: str) -> Refused:
    return Refused(413, "too_large", fact, _("Send it in parts, or raise the limits of the service."))
