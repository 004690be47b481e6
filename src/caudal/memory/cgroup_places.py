"""Where this process stands in the trees of control groups: which folder holds its memory group's files.

The kernel's own list of mounts (`/proc/self/mountinfo`) tells what of each tree can be seen and where;
without it the usual places are tried. Knows nothing of what the files say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from caudal.memory.kernel_files import text


@dataclass(frozen=True, slots=True)
class Place:
    """A process's group in one tree: its `folder`, and the `top` of what can be seen above it.

    `version` is 1 or 2. `exact` is false where the group lies outside of what is mounted here: `folder` is
    then the mount's top, a group above it or, in old containers that show the host's paths, the group itself.
    """

    version: int
    folder: Path
    top: Path
    exact: bool

    def way_up(self) -> list[Path]:
        """The group's folder and those above it, up to the top."""
        levels = [self.folder]
        while levels[-1] != self.top:
            levels.append(levels[-1].parent)
        return levels


@dataclass(frozen=True, slots=True)
class Places:
    """`memory` is where memory is charged; `unified` the v2 group, which has the pressure even in a
    hybrid."""

    memory: Place | None
    unified: Place | None


@dataclass(frozen=True, slots=True)
class _Mount:
    """A part of a tree: the group `inside` it, and everything below, is seen at `point`."""

    inside: str
    point: Path


def find(root: Path = Path("/"), pid: str = "self") -> Places:
    """The places of process `pid`; `None` for those that cannot be seen."""
    lines = [line.split(":", 2) for line in text(root / "proc" / pid / "cgroup").splitlines()]
    mounts = _mounts(root)
    paths_v2 = [path for number, controllers, path in lines if (number, controllers) == ("0", "")]
    unified = _place(2, paths_v2[0], mounts[2]) if paths_v2 else None
    paths_v1 = [path for _, controllers, path in lines if "memory" in controllers.split(",")]
    if paths_v1:  # a controller is in one tree only: v2 beside it has no memory
        return Places(_place(1, paths_v1[0], mounts[1]), unified)
    has_memory = unified is not None and "memory" in text(unified.top / "cgroup.controllers").split()
    return Places(unified if has_memory else None, unified)


def _mounts(root: Path) -> dict[int, list[_Mount]]:
    """Where v1's tree of memory and v2's tree are mounted, by version."""
    found: dict[int, dict[Path, str]] = {1: {}, 2: {}}
    lines = text(root / "proc/self/mountinfo").splitlines()
    if not lines:
        top = root / "sys/fs/cgroup"
        second = top if (top / "cgroup.controllers").exists() else top / "unified"
        return {1: _usual(top / "memory"), 2: _usual(second)}
    for line in lines:
        fields, _, kind = line.partition(" - ")
        inside, point = (_plain(field) for field in fields.split()[3:5])
        # A later mount on the same point hides the earlier one.
        if kind.startswith("cgroup2 "):
            found[2][root / point.lstrip("/")] = inside
        elif kind.startswith("cgroup ") and "memory" in kind.split()[-1].split(","):
            found[1][root / point.lstrip("/")] = inside
    return {
        version: [_Mount(inside, point) for point, inside in points.items()]
        for version, points in found.items()
    }


def _usual(point: Path) -> list[_Mount]:
    return [_Mount("/", point)] if point.is_dir() else []


def _plain(field: str) -> str:
    r"""A field of mountinfo without its escapes: `\040` is a blank."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _place(version: int, path: str, mounts: Iterable[_Mount]) -> Place | None:
    # The mount that begins nearest to the root shows the most of what is above.
    ordered = sorted(mounts, key=lambda mount: len(PurePosixPath(mount.inside).parts))
    for mount in ordered:
        below = _below(path, mount.inside)
        if below is not None and (mount.point / below).is_dir():
            return Place(version, mount.point / below, mount.point, exact=True)
    return Place(version, ordered[0].point, ordered[0].point, exact=False) if ordered else None


def _below(path: str, top: str) -> PurePosixPath | None:
    """`path` as seen from `top`, or `None` where it is not below; `..` stands for groups outside a
    namespace."""
    try:
        below = PurePosixPath(path).relative_to(top)
    except ValueError:
        return None
    return None if ".." in below.parts else below
