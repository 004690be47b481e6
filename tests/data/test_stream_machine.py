"""Two streams in one process, used in any way: never stuck, in one order, never above both budgets."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

import caudal
from caudal.core.errors import DoesNotFit
from caudal.core.units import MIB, Bytes
from caudal.memory.meters import charged_bytes

SAMPLES = 480
STUCK_SECONDS = 20.0
SLACK_BYTES = 16 * MIB  # of both together: threads, Python's own


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small samples that are gathered, ragged ones, and large ones that are read one by one."""
    draw = np.random.default_rng(0)
    folders = {}
    for kind, rows, width in (("small", 1, 64), ("ragged", 0, 32), ("large", 1, 12_000)):
        folder = folders[kind] = tmp_path_factory.mktemp(kind)
        if kind == "ragged":
            for k in range(SAMPLES):
                x = np.full((int(draw.integers(1, 200)), width), k, np.float32)
                np.savez(folder / f"{k:04}.npz", x=x, y=np.int64(k))
            continue
        x = np.repeat(np.arange(SAMPLES, dtype=np.float32)[:, None], rows * width, 1)
        for k in range(4):
            part = slice(k * SAMPLES // 4, (k + 1) * SAMPLES // 4)
            np.savez(folder / f"{k}.npz", x=x[part], y=np.arange(SAMPLES)[part])
    return folders


class Opened:
    """A stream, an iterator over it if one runs, and the sequence that it has to follow."""

    def __init__(self, options: dict[str, Any], expected: list[int]) -> None:
        self.options, self.expected = options, expected
        self.stream = caudal.stream(**options)
        self.running: Iterator[Any] | None = None
        self.at = 0  # samples of the present epoch, which is the first

    @property
    def budget(self) -> int:
        return int(Bytes.parse(self.options["ram"]))


class Streams(RuleBasedStateMachine):
    """Rules are what users do; whatever they do, the next sample is the one that has to come."""

    folders: dict[str, Path]
    orders: dict[str, list[int]]

    @initialize()
    def begin(self) -> None:
        self.opened: dict[str, Opened] = {}
        self.before = int(charged_bytes())

    @rule(
        place=st.sampled_from("ab"),
        kind=st.sampled_from(["small", "ragged", "large"]),
        batch=st.integers(1, 40),
        ram=st.sampled_from(["20MiB", "28MiB", "48MiB"]),
        threads=st.integers(1, 3),
        seed=st.integers(0, 2),
    )
    def open(self, place: str, kind: str, batch: int, ram: str, threads: int, seed: int) -> None:
        self.close(place)
        options = {
            "data": self.folders[kind], "batch_size": batch, "ram": ram, "threads": threads, "seed": seed,
            "samples": "file" if kind == "ragged" else "rows",
        }  # fmt: skip
        try:
            stream = caudal.stream(**options)
        except DoesNotFit:
            return
        key = f"{kind} {batch} {ram} {seed}"
        if key not in self.orders:  # one thread, undisturbed
            with caudal.stream(**(options | {"threads": 1})) as alone:
                self.orders[key] = [int(y) for one in alone for y in one.numpy("y")]
            assert sorted(self.orders[key]) == list(range(SAMPLES))
        stream.close()
        self.opened[place] = Opened(options, self.orders[key])

    @rule(place=st.sampled_from("ab"), batches=st.integers(1, 12))
    def take(self, place: str, batches: int) -> None:
        one = self.opened.get(place)
        if one is None:
            return
        one.running = one.running or iter(one.stream)
        for _batch in range(batches):
            batch = _within(lambda: next(one.running, None))
            if batch is None:
                assert one.at == SAMPLES
                self.close(place)
                return
            found = [int(y) for y in batch.numpy("y")]
            assert found == one.expected[one.at : one.at + len(found)]
            one.at += len(found)

    @rule(place=st.sampled_from("ab"))
    def break_off(self, place: str) -> None:
        """The loop's body raises: the iterator goes, the stream stays where it was."""
        one = self.opened.get(place)
        if one is None or one.running is None:
            return
        running, one.running = one.running, None
        with pytest.raises(ZeroDivisionError):
            running.throw(ZeroDivisionError())  # type: ignore[attr-defined]

    @rule(place=st.sampled_from("ab"), threads=st.integers(1, 4))
    def resume_elsewhere(self, place: str, threads: int) -> None:
        """Another stream with other threads goes on from the state."""
        one = self.opened.get(place)
        if one is None or one.at == SAMPLES:
            return
        state = one.stream.state_dict()
        self.close(place)
        again = Opened(one.options | {"threads": threads}, one.expected)
        again.stream.load_state_dict(state)
        again.at = one.at
        self.opened[place] = again

    @rule(place=st.sampled_from("ab"))
    def close(self, place: str) -> None:
        one = self.opened.pop(place, None)
        if one is not None:
            _within(one.stream.close)

    @invariant()
    def both_keep_their_bytes(self) -> None:
        if not hasattr(self, "opened"):
            return
        granted = sum(one.budget for one in self.opened.values())
        assert sum(int(one.stream.plan.arena_bytes) for one in self.opened.values()) <= granted
        assert int(charged_bytes()) - self.before <= granted + SLACK_BYTES

    def teardown(self) -> None:
        for place in "ab":
            self.close(place)


def _within(work: Any) -> Any:
    """What `work` gives, or a failure if it takes for ever."""
    found: list[Any] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:
            errors.append(error)

    began, thread = time.monotonic(), threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(STUCK_SECONDS)
    assert not thread.is_alive(), f"stuck for {time.monotonic() - began:.0f} s"
    if errors:
        raise errors[0]
    return found[0]


def test_two_streams_used_in_any_way(sets: dict[str, Path]) -> None:
    Streams.folders, Streams.orders = sets, {}
    run_state_machine_as_test(
        Streams,
        settings=settings(
            max_examples=25,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
