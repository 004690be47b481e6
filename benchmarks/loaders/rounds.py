"""Loaders in turns, A B C A B C …, and what the rounds say: medians, spans, ratios within a round.

A neighbour on the machine that slows one round slows all loaders of it, so only loaders of one round are
compared with each other.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.loaders.harness import Child, Result, run
from benchmarks.peers.child import Job

OURS = "Caudal"
MB = 1e6
START_SECONDS = 60.0  # for libraries and the first batches; some loaders hang when a worker is killed
GIVEN_UP = 2  # rounds that did not finish; then it is not tried again


@dataclass(frozen=True)
class Entry:
    """A loader in a race: its program, and the job with the folder that it reads."""

    child: Child
    job: Job

    @property
    def label(self) -> str:
        """Name in the tables."""
        return self.child.label

    @property
    def ours(self) -> bool:
        """Whether this is Caudal."""
        return self.label.startswith(OURS)


@dataclass
class Race:
    """All results of a race: `results` one a round, `checks` from the pass that fingerprinted samples."""

    entries: Sequence[Entry]
    sample_bytes: float
    results: dict[str, list[Result]] = field(default_factory=dict)
    checks: dict[str, Result] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def rates(self, label: str) -> list[float]:
        """Samples a second of each round; 0 where the loader did not finish."""
        return [result.rate for result in self.results[label]]

    def rate(self, label: str) -> float:
        """The median."""
        return statistics.median(self.rates(label))

    def above_bytes(self, label: str) -> int:
        """The largest peak above the imported base, of all rounds."""
        return max(result.above_bytes for result in self.results[label])

    def failures(self, label: str) -> list[str]:
        """How rounds ended that did not finish."""
        return [result.failed for result in self.results[label] if result.failed]

    def peers(self, most_bytes: float = float("inf")) -> list[str]:
        """Peers that finished every round, in no more memory than that."""
        labels = [entry.label for entry in self.entries if not entry.ours]
        return [x for x in labels if not self.failures(x) and self.above_bytes(x) <= most_bytes]

    def ratio(self, label: str, among: Sequence[str] | None = None) -> float:
        """The median of the ratios; 0 where there are none, or the loader did not finish."""
        ratios = self.ratios(label, among)
        return 0.0 if self.failures(label) or not ratios else statistics.median(ratios)

    def ratios(self, label: str, among: Sequence[str] | None = None) -> list[float]:
        """Rate over that of the best peer (of those `among`) of the same round; empty without one."""
        peers = self.peers() if among is None else among
        rounds = range(len(self.results[label]))
        best = [max((self.results[peer][k].rate for peer in peers), default=0.0) for k in rounds]
        return [rate / most for rate, most in zip(self.rates(label), best, strict=True) if most]

    def figures(self) -> list[tuple[str, str]]:
        """A line a loader, fastest first, then who was left out, and whether all delivered the same."""
        order = sorted((entry.label for entry in self.entries), key=self.rate, reverse=True)
        lines = [(label, self._line(label)) for label in order]
        if self.checks:
            lines.append(("samples delivered", self.agreement()))
        return [*lines, *(("left out", reason) for reason in self.left_out)]

    def _line(self, label: str) -> str:
        failures = self.failures(label)
        if failures:
            again = ", not tried again" if len(failures) >= GIVEN_UP else ""
            return f"did not finish, {min(len(failures), GIVEN_UP)} times{again}: {failures[0]}"
        results, rates = self.results[label], self.rates(label)
        cpu = statistics.median(r.cpu_seconds / max(1, r.samples) * 1000 for r in results)
        first = statistics.median(r.first_batch_seconds for r in results)
        stall = statistics.median(r.stall for r in results)
        ratios = self.ratios(label)
        part = f", {statistics.median(ratios):.2f} × best peer" if ratios else ""
        return (
            f"{self.rate(label):.0f} samples/s ({min(rates):.0f}–{max(rates):.0f}){part}, "
            f"{self.rate(label) * self.sample_bytes / MB:.0f} MB/s, {cpu:.3g} CPU-s/1000, "
            f"{self.above_bytes(label) / MB:.0f} MB above base, first batch {first:.2f} s, stall {stall:.0%}"
        )

    def disagreeing(self) -> list[str]:
        """Loaders whose samples are not those of the most; a mean that is the same tells nothing of order."""
        sums = [check.checksum for check in self.checks.values() if not check.failed]
        usual = statistics.mode(sums) if sums else None
        return [label for label, check in self.checks.items() if check.failed or check.checksum != usual]

    def agreement(self) -> str:
        """Who delivered the same multiset of samples."""
        wrong = self.disagreeing()
        same = [label for label in self.checks if label not in wrong]
        words = (
            f"the same {self.checks[same[0]].samples} by {', '.join(same)}" if same else "by none the same"
        )
        for label in wrong:
            check = self.checks[label]
            words += f"; {label}: {check.failed or f'{check.samples} others, mean {check.mean:.6g}'}"
        return words


def race(
    entries: Sequence[Entry],
    sample_bytes: float,
    rounds: int,
    limit_bytes: int | None = None,
    before: Callable[[Entry], None] = lambda _entry: None,
    left_out: Sequence[str] = (),
    check: bool = True,
) -> Race:
    """Check what each loader delivers, then run all in turns; `before` prepares the page cache for each."""
    found = Race(entries, sample_bytes, left_out=list(left_out))
    for entry in entries if check else ():
        found.checks[entry.label] = run(entry.child, dataclasses.replace(entry.job, check=True))
    for _round in range(rounds):
        for entry in entries:
            results = found.results.setdefault(entry.label, [])
            if len(found.failures(entry.label)) >= GIVEN_UP:
                results.append(results[-1])
                continue
            before(entry)
            patience = min(entry.job.seconds_most, 600) + START_SECONDS
            results.append(run(entry.child, entry.job, limit_bytes, patience))
    return found
