"""Whatever is killed, whenever: no job is lost, stuck, run twice or ended under a wrong name.

`CAUDAL_CHAOS_RUNS` trainings (200), each with a blow at a random moment: half of them on the embedded queue
with SQLite, half on Celery with Redis and PostgreSQL. Several run at once where the blow allows it. With
`CAUDAL_CHAOS_LOG=FILE` what came of each is written there, and a campaign that was cut goes on;
`CAUDAL_CHAOS_SECONDS` begins nothing more after so long, `CAUDAL_CHAOS_PARTS=celery` leaves the others for
another time.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import cycle, islice
from pathlib import Path
from statistics import median

from benchmarks.chaos_blows import OWN, Campaign, Outcome, Tally
from benchmarks.chaos_house import ChaosHouse, Doubles
from benchmarks.rows import Row
from caudal.service.work import TrainWork, Work

AT_ONCE = 4
_ALONE_IN = 900 * 2**20
EMBEDDED = ("own", "server", "own", "worker", "own", "clock")
CELERY = ("own", "server", "redis", "own", "worker", "postgres", "own", "redis", "clock", "postgres")


@dataclass(frozen=True)
class Part:
    """Some of the campaign, on one house: `waves` of blows, each with the jobs that it hits."""

    name: str
    celery: bool
    waves: list[tuple[str, ...]]
    alone: bool = False


@dataclass
class Log:
    """What came of each job, in a file if there is one: a line for each, by part."""

    path: Path | None
    rows: list[tuple[str, Outcome]] = field(default_factory=list)
    twice: int = 0

    @classmethod
    def open(cls, path: Path | None) -> Log:
        """With what is there already."""
        log = cls(path)
        for line in path.read_text().splitlines() if path is not None and path.is_file() else ():
            said = json.loads(line)
            if "twice" in said:
                log.twice += said["twice"]
            else:
                log.rows.append((said.pop("part"), Outcome(**said)))
        return log

    def add(self, part: str, outcome: Outcome) -> None:
        """One more job."""
        self.rows.append((part, outcome))
        self._write({"part": part, **asdict(outcome)})

    def saw_twice(self, number: int) -> None:
        """So many jobs of which two attempts were alive at once."""
        self.twice += number
        self._write({"twice": number})

    def _write(self, said: dict[str, object]) -> None:
        print(said, flush=True)
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps(said) + "\n")

    def tally(self) -> Tally:
        """All of it."""
        tally = Tally(twice=self.twice)
        for _part, outcome in self.rows:
            tally.add(outcome)
        return tally


def parts(number: int) -> list[Part]:
    """The campaign: the same one for the same number of runs."""
    alone = max(4, number // 12)
    embedded, celery = number - number // 2 - alone, number // 2
    return [
        Part(
            "alone",
            False,
            [(blow,) for blow in islice(cycle(("disk", "memory", "disk", "disk")), alone)],
            True,
        ),
        Part("embedded", False, _waves(EMBEDDED, embedded)),
        Part("celery", True, _waves(CELERY, celery)),
    ]


def _waves(kinds: tuple[str, ...], number: int) -> list[tuple[str, ...]]:
    draw, waves = random.Random(5), []
    for kind in cycle(kinds):
        size = min(AT_ONCE, number)
        if not size:
            return waves
        waves.append(tuple(draw.choice(OWN) if kind == "own" else kind for _i in range(size)))
        number -= size
    return waves


def tiny_training(folder: Path) -> Work:
    """20 steps on six small scenes."""
    from tests.data.sets import blob_set

    data = blob_set(folder / "data", [(96, 96)] * 6)
    spec = folder / "spec.toml"
    spec.write_text(
        f'task = "segmentation"\n[data]\nimages = [{json.dumps(str(data))}]\n'
        "[training]\nsteps = 20\nbatch = 4\nvalidate_every = 10\ncheckpoint_steps = 2\n"
        "[model]\nname = 'unet'\n[model.config]\nwidth = 8\ndepth = 2\nstem = 1\n"
    )
    return TrainWork(spec=spec, ram="600MiB", device="cpu")


def carry_out(part: Part, log: Log, folder: Path, until: float) -> None:
    """What is left of a part, as long as there is time."""
    done = sum(name == part.name for name, _outcome in log.rows)
    waves = list(part.waves)
    while waves and done >= len(waves[0]):
        done -= len(waves.pop(0))
    if not waves or time.monotonic() > until:
        return
    with ExitStack() as stack:
        group = None
        if part.alone and os.geteuid() == 0:
            from tests.cgroups import memory_group

            group = stack.enter_context(memory_group(_ALONE_IN))
        ram, at_once = ("800MiB", 1) if part.alone else ("4GiB", AT_ONCE)
        house = ChaosHouse(folder / part.name, part.celery, group, ram=ram, celery_workers=at_once)
        small = part.alone and _small_disk(house, stack)
        stack.callback(house.close)
        house.start()
        doubles = Doubles(house)
        doubles.start()
        try:
            seed = 7 + len(waves)
            campaign = Campaign(
                house, tiny_training(folder), seed, lambda outcome: log.add(part.name, outcome)
            )
            campaign.calm()
            for wave in waves:
                if time.monotonic() > until:
                    break
                possible = {"memory": group is not None, "disk": small}.get(wave[0], True)
                campaign.wave(wave if possible else ("training",) * len(wave))
        finally:
            doubles.stop()
            if doubles.found:
                log.saw_twice(len(doubles.found))


def row() -> Row:
    """See the first words of this file."""
    number = int(os.environ.get("CAUDAL_CHAOS_RUNS", "200"))
    began = time.monotonic()
    until = began + float(os.environ.get("CAUDAL_CHAOS_SECONDS", "1e9"))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whatever was started is ended then, too
    wanted = os.environ.get("CAUDAL_CHAOS_PARTS", "alone,embedded,celery").split(",")
    where = os.environ.get("CAUDAL_CHAOS_LOG")
    log = Log.open(Path(where) if where else None)
    with tempfile.TemporaryDirectory(prefix="caudal-chaos-") as folder:
        for part in parts(number):
            if part.name in wanted:
                carry_out(part, log, Path(folder), until)
    return judged(log.tally(), number)


def judged(tally: Tally, number: int) -> Row:
    """The row, of all that was written down."""
    right = 1 - len(tally.wrong) / max(1, tally.judged)
    slowest = max(tally.noticed, default=0.0)
    faults = (
        tally.lost,
        tally.stuck,
        tally.twice,
        len(tally.half),
        tally.losses_differ,
        tally.doubled_events,
    )
    met = tally.runs >= number and not any(faults) and right >= 0.99 and slowest <= 5
    blows: Counter[str] = tally.blows
    return Row(
        f"{tally.runs} trainings of 20 steps, each with a kill -9 or another blow at a random moment",
        "none lost, stuck, run twice or half written; the reason right in 99 %, known in 5 s; losses equal",
        met,
        [
            ("blows", ", ".join(f"{blow} {n}" for blow, n in sorted(blows.items()))),
            ("lost, stuck, run twice", f"{tally.lost}, {tally.stuck}, {tally.twice}"),
            (
                "reason right",
                f"{right:.1%} of {tally.judged} (the job was done before the blow: {tally.missed})",
            ),
            ("wrong", "; ".join(tally.wrong) or "none"),
            ("known after", f"median {median(tally.noticed or [0]):.2f} s, at most {slowest:.2f} s"),
            ("half files under a final name", str(len(tally.half))),
            ("losses other than undisturbed", f"{tally.losses_differ} of {tally.compared}"),
            ("runs with events lost or doubled", str(tally.doubled_events)),
        ],
    )


def _small_disk(house: ChaosHouse, stack: ExitStack) -> bool:
    """Put the jobs on a disk of their own that can be filled."""
    jobs = house.settings.jobs_folder()
    jobs.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(jobs)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        return False
    stack.callback(subprocess.run, ["umount", str(jobs)], check=True)
    return True
