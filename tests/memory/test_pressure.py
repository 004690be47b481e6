"""Memory pressure: the machine's and the group's own, which lives in the v2 tree even in a hybrid."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.memory.trees import KINDS, write

from caudal.memory import pressure
from caudal.memory.pressure import Pressure

FILE = """\
some avg10=1.50 avg60=0.40 avg300=0.10 total=2500000
full avg10=0.25 avg60=0.20 avg300=0.05 total=1000000
"""
READ = Pressure(1.5, 0.25, 0.4, 0.2, 0.1, 0.05, 2.5, 1.0)


def test_shares_are_percent_and_sums_are_seconds(tmp_path: Path) -> None:
    assert pressure.of_machine(write(tmp_path, {"proc/pressure/memory": FILE})) == READ


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("docker, v2, own namespace", "sys/fs/cgroup/memory.pressure"),
        ("hybrid: memory in v1, the rest unified", "sys/fs/cgroup/unified/x/memory.pressure"),
    ],
)
def test_the_groups_own_pressure_is_read_where_the_kernel_keeps_it(
    kind: str, file: str, tmp_path: Path
) -> None:
    root = write(tmp_path, KINDS[kind].files | {file: FILE})
    assert pressure.of_group(root) == READ
    assert pressure.of_machine(root) is None


def test_the_pressure_of_another_group_is_not_taken_for_ones_own(tmp_path: Path) -> None:
    kind = KINDS["a sandbox that sees its host's tree"]
    assert pressure.of_group(write(tmp_path, kind.files | {"sys/fs/cgroup/memory.pressure": FILE})) is None


@pytest.mark.parametrize("content", ["", "\n", "full avg10=0.25 avg60=0.20 avg300=0.05 total=1\n"])
def test_a_kernel_that_does_not_tell_is_said_not_to(content: str, tmp_path: Path) -> None:
    assert pressure.of_machine(write(tmp_path, {"proc/pressure/memory": content})) is None
    assert pressure.of_machine(tmp_path / "nowhere") is None
    assert pressure.of_group(tmp_path / "nowhere") is None
