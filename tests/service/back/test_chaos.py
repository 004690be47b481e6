"""A short form of the chaos row, with work that takes a second: no blow loses, doubles or misnames a job."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from benchmarks.chaos import Campaign, Tally
from benchmarks.chaos_house import ChaosHouse, Doubles

from caudal.service.work import TrainWork
from tests.service.back.conftest import VERB

BLOWS = ("training", "supervisor", "server", "worker", "clock", "training", "supervisor")


@pytest.mark.timeout(180)
def test_no_blow_loses_doubles_or_misnames_a_job(tmp_path: Path) -> None:
    house = ChaosHouse(tmp_path / "house", celery=False, program=(sys.executable, str(VERB)))
    tally = Tally()
    work = TrainWork(task="hold", data=("1.5",), ram="100MiB", device="cpu")
    try:
        house.start()
        doubles = Doubles(house)
        doubles.start()
        campaign = Campaign(house, work, span=1.5, seed=3, tally=tally)
        for blow in ("none", *BLOWS):
            campaign.run(blow)
        doubles.stop()
    finally:
        house.close()
    assert (tally.runs, tally.lost, tally.stuck, doubles.found) == (len(BLOWS), 0, 0, set())
    assert (tally.wrong, tally.half, tally.losses_differ, tally.doubled_events) == ([], [], 0, 0)
    assert tally.compared == len(BLOWS)
    assert tally.judged >= 3
    assert max(tally.noticed, default=0.0) <= 5.0
    assert house.ours() == []
