"""Who begins next: never above what is there, in fair order, and nobody waits for ever."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from caudal.service.admission import PASSES_A_RANK, PATIENCE, Candidate, Room, choose

GIB = 2**30
ROOM = Room(ram=8 * GIB, vram=4 * GIB, free_ram=8 * GIB, free_vram=4 * GIB, free_places=4)


def candidate(
    line: int, ram: int | None = GIB, project: str = "p", priority: int = 0, **more: int
) -> Candidate:
    values = {"passed": 0, "vram": 0} | more
    return Candidate(f"j{line}", project, priority, values["passed"], line, ram, values["vram"])


candidates = st.builds(
    Candidate,
    id=st.uuids().map(str),
    project=st.sampled_from("abc"),
    priority=st.integers(-10, 10),
    passed=st.integers(0, 200),
    line=st.integers(1, 10**6),
    ram=st.none() | st.integers(0, 12 * GIB),
    vram=st.none() | st.integers(0, 6 * GIB),
)


@given(st.lists(candidates, max_size=20), st.integers(0, 8 * GIB), st.integers(0, 4 * GIB), st.integers(0, 3))
def test_who_begins_has_its_bytes(queued: list[Candidate], ram: int, vram: int, places: int) -> None:
    room = replace(ROOM, free_ram=ram, free_vram=vram, free_places=places)
    chosen = choose(queued, {}, room)
    if chosen is not None:
        needed_ram, needed_vram = chosen.needs(room)
        assert needed_ram <= ram
        assert needed_vram <= vram
        assert places > 0


@given(st.lists(candidates, max_size=20))
def test_an_empty_machine_takes_the_first_that_it_could_ever_take(queued: list[Candidate]) -> None:
    could = [one for one in queued if (one.ram or 0) <= ROOM.ram and (one.vram or 0) <= ROOM.vram]
    assert (choose(queued, {}, ROOM) is not None) == bool(could)


def test_a_job_of_unknown_size_runs_alone() -> None:
    unknown = candidate(1, ram=None)
    assert choose([unknown], {}, ROOM) is unknown
    assert choose([unknown], {}, replace(ROOM, free_ram=8 * GIB - 1)) is None


def test_turns_go_by_priority_then_to_who_has_least_then_by_line() -> None:
    first, second, other, urgent = (
        candidate(1), candidate(2), candidate(3, project="q"), candidate(4, priority=1)
    )  # fmt: skip
    assert choose([second, first], {}, ROOM) is first
    assert choose([first, second, other], {"p": 1}, ROOM) is other
    assert choose([first, other, urgent], {"p": 5}, ROOM) is urgent


def test_small_ones_slip_past_a_large_one_so_often_and_no_more() -> None:
    small = candidate(2)
    room = replace(ROOM, free_ram=2 * GIB)
    assert choose([candidate(1, ram=6 * GIB), small], {}, room) is small
    assert choose([candidate(1, ram=6 * GIB, passed=PATIENCE), small], {}, room) is None
    assert (
        choose([candidate(1, ram=9 * GIB, passed=PATIENCE), small], {}, room) is small
    )  # not for this machine


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 8),
    st.integers(-10, 10),
    st.lists(
        st.tuples(st.integers(1, 8), st.integers(-10, 10), st.sampled_from("pqr")), min_size=1, max_size=8
    ),
    st.integers(1, 4),
)
def test_nobody_waits_for_ever(
    ram: int, priority: int, others: list[tuple[int, int, str]], running_at_most: int
) -> None:
    """A stream of other jobs, as urgent and as small as they like, never ends; still its turn comes."""
    waiting = candidate(0, ram=ram * GIB, priority=priority)
    running: list[Candidate] = []
    queued, line = [waiting], 0
    bound = PASSES_A_RANK * 25 + PATIENCE + 40
    for turn in range(bound * (running_at_most + 2)):
        while len(queued) < 6:
            line += 1
            gib, urgency, project = others[line % len(others)]
            queued.append(candidate(line, ram=gib * GIB, priority=urgency, project=project))
        room = replace(
            ROOM,
            free_ram=ROOM.ram - sum(one.ram or 0 for one in running),
            free_places=running_at_most - len(running),
        )
        counts = {project: sum(one.project == project for one in running) for project in "pqr"}
        chosen = choose(queued, counts, room)
        if chosen is None:
            assert running, "an empty machine takes somebody"
            running.pop(turn % len(running))
            continue
        if chosen.id == waiting.id:
            return
        queued = [
            replace(one, passed=one.passed + 1) if one.line < chosen.line else one
            for one in queued
            if one.id != chosen.id
        ]
        running.append(chosen)
    raise AssertionError("its turn never came")
