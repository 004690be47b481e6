"""A short form of the chaos row, with work that takes a second: no blow loses, doubles or misnames a job."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from benchmarks.chaos_blows import Campaign, Tally
from benchmarks.chaos_house import ChaosHouse, Doubles

from caudal.service.work import TrainWork
from tests.service.back.conftest import VERB

WAVES = (
    ("training", "supervisor", "training", "supervisor"),
    ("server",) * 2,
    ("worker",) * 2,
    ("clock",) * 2,
)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_no_blow_loses_doubles_or_misnames_a_job(tmp_path: Path) -> None:
    house = ChaosHouse(tmp_path / "house", celery=False, program=(sys.executable, str(VERB)))
    tally = Tally()
    work = TrainWork(task="hold", data=("1.5",), ram="100MiB", device="cpu")
    try:
        house.start()
        doubles = Doubles(house)
        doubles.start()
        campaign = Campaign(house, work, seed=3, tell=tally.add)
        campaign.calm()
        for wave in WAVES:
            campaign.wave(wave)
        doubles.stop()
    finally:
        house.close()
    assert (tally.runs, tally.lost, tally.stuck, doubles.found) == (sum(map(len, WAVES)), 0, 0, set())
    assert (tally.wrong, tally.half, tally.losses_differ, tally.doubled_events) == ([], [], 0, 0)
    assert tally.compared == tally.runs
    assert len(tally.noticed) >= 3
    assert max(tally.noticed) <= 5.0
    assert house.ours() == []
