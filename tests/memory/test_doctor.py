"""The doctor prints every limit that it found, one mend under each fault, and none where all is well."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.memory.trees import GIB, KINDS, MIB, Kind, meminfo, ulimits, v1, v2, write

from caudal.core.units import Bytes
from caudal.memory.vram import Reading
from caudal.runs.doctor import Fact, device, examine, memory, settings

CALM = "some avg10=0.00 avg60=0.00 avg300=0.00 total=5\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n"
BUSY = CALM.replace("avg60=0.00", "avg60=9.00")
WELL: dict[str, object] = {
    "proc/self/cgroup": "0::/",
    "sys/fs/cgroup/cgroup.controllers": "memory",
    "sys/fs/cgroup/memory.pressure": CALM,
    "proc/pressure/memory": CALM,
    "proc/self/limits": ulimits(),
    "proc/self/status": f"VmSize: {40 * 1024} kB\nVmData: {20 * 1024} kB",
    "proc/meminfo": meminfo(8 * GIB, 7 * GIB, SwapTotal=GIB, SwapFree=GIB, CommitLimit=6 * GIB),
    "proc/sys/vm/overcommit_memory": 0,
    "proc/sys/vm/max_map_count": 65530,
    "sys/kernel/mm/transparent_hugepage/enabled": "[always] madvise never",
    **v2("sys/fs/cgroup", 4 * GIB, anon=100 * MIB, swap_limit=0),
}


@pytest.fixture(autouse=True)
def english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAUDAL_LANG", "en")


def look(root: Path, files: Mapping[str, object]) -> list[Fact]:
    write(root, files)
    if not (root / "dev/shm").exists():
        (root / "dev").mkdir(exist_ok=True)
        (root / "dev/shm").symlink_to("/dev/shm")
    return [
        *memory.limits_of_ram(root),
        *memory.state(root),
        *settings.of_process(root),
        *settings.of_kernel(root),
    ]


def faults(facts: list[Fact]) -> list[str]:
    # Of the machine that the tests run on: whether peaks can be reset, and how large its /dev/shm is.
    return [fact.name for fact in facts if fact.mend and fact.name not in ("exact peaks", "/dev/shm")]


def test_a_machine_that_is_well_has_nothing_to_mend(tmp_path: Path) -> None:
    facts = look(tmp_path, WELL)
    assert faults(facts) == []
    values = {fact.name: fact.value for fact in facts}
    assert values["limit: cgroup v2 /"] == "4 GiB, 100 MiB held"
    assert values["the limit that counts"] == "cgroup v2 /: 4 GiB"
    assert values["available memory"] == str(Bytes(4 * GIB - 100 * MIB))
    assert values["default ram budget"] == "3.2 GiB"
    assert values["swap"] == "none"
    assert values["huge pages"] == "always"


def test_what_neighbours_hold_of_the_limit_is_said_beside_the_default_budget(tmp_path: Path) -> None:
    facts = look(tmp_path, WELL | v2("sys/fs/cgroup", 4 * GIB, anon=GIB, swap_limit=0))
    assert next(f.value for f in facts if f.name == "default ram budget") == "2.4 GiB; others hold 1 GiB"
    assert faults(facts) == []


# One kind has a limit above that does not bear on what is below it.
BEARING = {name: kind for name, kind in KINDS.items() if "does not count" not in name}


@pytest.mark.parametrize("kind", BEARING.values(), ids=BEARING)
def test_every_limit_on_the_way_up_is_printed(kind: Kind, tmp_path: Path) -> None:
    machine = {"proc/meminfo": meminfo(128 * GIB, 100 * GIB)}
    facts = look(tmp_path, {**kind.files, **machine})
    printed = [fact.value for fact in facts if fact.name.startswith("limit: cgroup")]
    written = {
        int(path.read_text())
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes")
        for path in tmp_path.rglob(name)
        if path.read_text().strip().isdigit() and int(path.read_text()) < 2**60
    }
    for limit in written:
        assert any(value.startswith(str(Bytes(limit))) for value in printed)
    counts = next(fact.value for fact in facts if fact.name == "the limit that counts")
    assert counts.endswith(str(Bytes(kind.limit or 128 * GIB)))
    assert ("memory group" in faults(facts)) == (not kind.exact)


GROUP = "sys/fs/cgroup"
FAULTS: dict[str, dict[str, object]] = {
    "default ram budget": {"proc/meminfo": meminfo(8 * GIB, GIB)},
    "limit: rlimit address space": {"proc/self/limits": ulimits(address_space=6 * GIB)},
    "limit: rlimit data": {"proc/self/limits": ulimits(data_size=6 * GIB)},
    "limit: commit limit": {"proc/sys/vm/overcommit_memory": 2},
    "swap": v2(GROUP, 4 * GIB, swap=GIB),
    "kills for memory in this group": v2(GROUP, 4 * GIB, kills=3),
    "a kill for memory": v2(GROUP, 4 * GIB, together=1),
    "times that memory.high slowed this group down": v2(GROUP, 4 * GIB, high=3 * GIB, throttled=9),
    "memory pressure of the machine": {"proc/pressure/memory": BUSY},
    "memory pressure of the group": {f"{GROUP}/memory.pressure": BUSY},
    "open files": {"proc/self/limits": ulimits(open_files=256)},
    "processes and threads": {"proc/self/limits": ulimits(processes=100)},
    "resident set": {"proc/self/limits": ulimits(resident_set=GIB)},
    "mappings (vm.max_map_count)": {"proc/sys/vm/max_map_count": 4096},
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_has_one_mend_and_nothing_else_has(name: str, tmp_path: Path) -> None:
    facts = look(tmp_path, WELL | FAULTS[name])
    assert faults(facts) == [name]
    mend = next(fact.mend for fact in facts if fact.name == name)
    assert mend.endswith(".")
    assert ". " not in mend


def test_a_group_whose_killer_is_off_is_a_fault(tmp_path: Path) -> None:
    first = {"proc/self/cgroup": "4:memory:/", **v1("sys/fs/cgroup/memory", 4 * GIB, killer_off=1)}
    facts = look(tmp_path, {**WELL, **first})
    assert faults(facts) == ["a kill for memory"]


def test_a_memory_high_that_slows_nobody_down_is_no_fault(tmp_path: Path) -> None:
    facts = look(tmp_path, WELL | v2(GROUP, 4 * GIB, high=3 * GIB))
    assert faults(facts) == []
    assert "limit: cgroup v2 / memory.high" in [fact.name for fact in facts]


def test_a_small_and_a_full_shared_memory_are_faults(small_disk: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "dev").mkdir(parents=True)
    (root / "dev/shm").symlink_to(small_disk)
    fact = next(fact for fact in look(root, WELL) if fact.name == "/dev/shm")
    assert (fact.value, "small" in fact.mend) == ("0 B of 3 MiB used", True)


def test_a_machine_without_any_meter_asks_for_a_budget(tmp_path: Path) -> None:
    facts = look(tmp_path, {})
    assert faults(facts) == ["available memory"]
    assert {fact.value for fact in facts if fact.name in ("swap", "huge pages")} == {"cannot be seen"}


def test_a_card_that_others_fill_is_a_fault() -> None:
    def reading(others: int | None) -> Reading:
        return Reading(Bytes(24 * GIB), Bytes(GIB), Bytes(GIB), Bytes(2 * GIB), others and Bytes(others))

    assert [bool(fact.mend) for fact in device.holders(0, reading(20 * GIB))] == [False, True]
    for held in (0, 3 * GIB, None):
        assert not any(fact.mend for fact in device.holders(0, reading(held)))


def test_this_machine_can_be_examined() -> None:
    names = [fact.name for fact in examine()]
    assert len(names) == len(set(names))
    assert any("cgroup" in name for name in names)
