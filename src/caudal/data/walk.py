"""Walks the folders of a disk for files by their endings. Opens none and asks none for its size."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import AnyStr

from caudal.core.confined import check_path
from caudal.core.messages import _
from caudal.data.unreadable import unreadable


def walk(root: AnyStr, endings: tuple[AnyStr, ...]) -> Iterator[os.DirEntry[AnyStr]]:
    """The files below the folder `root` whose names, in lower case, end so, in any order.

    Hidden ones and linked folders are left out. Names as bytes take less time and memory than as text.

    Raises:
        UnreadableFile: there is no such folder, or one may not be looked into.
        DataError: a file is a link that leads out of the folders that this process may read.
    """
    check_path(root)
    folders, here = [root], root
    hidden: AnyStr = root[:0] + (b"." if isinstance(root, bytes) else ".")
    try:
        while folders:
            here = folders.pop()
            with os.scandir(here) as entries:
                for entry in entries:
                    if entry.name.startswith(hidden):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif entry.name.lower().endswith(endings):
                        if entry.is_symlink():
                            check_path(entry.path)
                        if entry.is_file():
                            yield entry
    except FileNotFoundError:
        raise unreadable(
            Path(os.fsdecode(here)), _("there is no such file or folder"), _("Check the path.")
        ) from None
    except OSError as error:
        why = error.strerror or str(error)
        raise unreadable(Path(os.fsdecode(here)), why, _("Check the path and its permissions.")) from None
