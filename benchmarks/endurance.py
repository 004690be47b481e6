"""What a long run must bear: a set of any size in the same memory, and samples that are broken or slow.

Nothing is compared with other loaders here. The sets lie in a temporary folder, which is removed; that of
64 GiB is nearly all holes. The measured work is done by `endurance_child`.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.children import GIB, MIB, mib, module
from benchmarks.endurance_child import Account
from benchmarks.loaders import harness, sets
from benchmarks.loaders.harness import Child, Result
from benchmarks.peers.child import Job
from benchmarks.peers.sources import picture
from benchmarks.rows import Row

ROUNDS = int(os.environ.get("CAUDAL_BENCH_ROUNDS", 5))
CHILD = "endurance_child"

SIZES_GIB = (1, 4, 16, 64)
GROUP_BYTES, RAM = 512 * MIB, "256MiB"
SECONDS = 8.0
SMALL_BATCH, LARGE_BATCH = 16, 40  # the stream holds six: 96 MiB, and 240, nearly all that it may
SAMPLE_BYTES, FILE_SAMPLES = MIB, 256

PICTURES_SHARE = 0.5  # of 4 000
BROKEN_SHARE, SLOW_SHARE, BROKEN_LIMIT = 0.01, 0.002, 0.02
ERASED_BYTES = 512
TURNS = 2  # of all sets in one child: epochs are short, and neighbours on the machine slow one or the other
SLOW_SIDES = 9  # times as wide and as high: 15 Mpx, as cameras make them


# A set of any size, in the same memory ------------------------------------------------------------------


def flat_memory() -> Row:
    """1, 4, 16 and 64 GiB in one real group of 512 MiB."""
    small, large = dict[int, Result](), dict[int, Result]()
    for size in SIZES_GIB:
        small[size] = _fresh(size, SMALL_BATCH)
    for size in (SIZES_GIB[0], SIZES_GIB[-1]):
        large[size] = _fresh(size, LARGE_BATCH)
    results = [*small.values(), *large.values()]
    return Row(
        f"samples of 1 MiB in random order from sets of {', '.join(map(str, SIZES_GIB))} GiB (.npy files, "
        f"sparse on disk), ram={RAM} in a real group of {mib(GROUP_BYTES)}, which holds Python, torch and "
        f"the page cache beside the stream; {SECONDS:.0f} s after the first batch, in batches of "
        f"{SMALL_BATCH}, and of {LARGE_BATCH}, which take nearly all the ram; each sample's number checked",
        "no kill, no wrong sample, and the charged peak of the largest set at most 5 % above that of the "
        "smallest",
        not any(one.failed for one in results) and max(growth(small), growth(large)) <= 0.05,
        [
            (f"growth of the peak from {SIZES_GIB[0]} to {SIZES_GIB[-1]} GiB",
             f"{growth(small):+.1%}; in batches of {LARGE_BATCH} {growth(large):+.1%}"),
            ("killed", str(sum(one.failed.startswith("killed") for one in results))),
            *((f"{size} GiB", _told(size, one)) for size, one in small.items()),
            *((f"{size} GiB, batches of {LARGE_BATCH}", _told(size, one)) for size, one in large.items()),
        ],
    )  # fmt: skip


def _fresh(size_gib: int, batch: int) -> Result:
    """Drain a set of that size of its own: no page of it was read before, and few ever reach the disk."""
    with tempfile.TemporaryDirectory() as name:
        return drain(sparse_set(Path(name) / "set", size_gib * GIB // SAMPLE_BYTES), batch)


def sparse_set(folder: Path, samples: int, file_samples: int = FILE_SAMPLES) -> Path:
    """`x` int32 of 1 MiB a sample: its number in the first and in the last value, holes between."""
    folder.mkdir()
    values = SAMPLE_BYTES // 4
    for first in range(0, samples, file_samples):
        rows = min(file_samples, samples - first)
        with (folder / f"{first // file_samples:04d}.npy").open("wb") as file:
            header = {"descr": "<i4", "fortran_order": False, "shape": (rows, values)}
            np.lib.format.write_array_header_1_0(file, header)
            file.flush()
            start = file.tell()
            file.truncate(start + rows * SAMPLE_BYTES)
            for row in range(rows):
                number = np.int32(first + row).tobytes()
                begin = start + row * SAMPLE_BYTES
                os.pwrite(file.fileno(), number, begin)
                os.pwrite(file.fileno(), number, begin + SAMPLE_BYTES - len(number))
    return folder


def drain(
    folder: Path, batch: int, ram: str = RAM, seconds: float = SECONDS, group_bytes: int = GROUP_BYTES
) -> Result:
    """Stream a sparse set for some seconds after the first batch, in a real group.

    Raises:
        RuntimeError: no memory group can be made here.
    """
    job = Job(str(folder), samples=10**9, batch=batch, seconds_most=seconds, options={"ram": ram})
    child = Child("Caudal", f"benchmarks.{CHILD}", sys.executable)
    return harness.run(child, job, group_bytes, timeout_seconds=60 + seconds)


def growth(results: Mapping[int, Result]) -> float:
    """How far the charged peak of the largest set is above that of the smallest."""
    least, most = results[min(results)], results[max(results)]
    return most.peak_bytes / least.peak_bytes - 1


def _told(size_gib: int, one: Result) -> str:
    if one.failed:
        return one.failed
    return (
        f"peak {mib(one.peak_bytes)} ({mib(one.above_bytes)} above what Python and torch held), first batch "
        f"{one.first_batch_seconds:.2f} s, {one.rate:.0f} samples/s, "
        f"{one.samples * SAMPLE_BYTES / GIB / size_gib:.2f} epochs"
    )


# Samples that are broken or slow ------------------------------------------------------------------------


@dataclass(frozen=True)
class Pictures:
    """The same pictures `sound`, with some `corrupt` ones, and with those and some `slow` ones."""

    folders: dict[str, Path]
    samples: int
    corrupt: frozenset[int]
    slow: frozenset[int]


def broken() -> Row:
    """One epoch of each, in turns."""
    with tempfile.TemporaryDirectory() as name:
        work = sets.make("photographs", sets.default_cache(), PICTURES_SHARE)
        pictures = picture_sets(work, Path(name))
        times = slowness(pictures)
        found: dict[str, list[Account]] = {label: [] for label in pictures.folders}
        for number in range(ROUNDS):
            for folder in pictures.folders.values():
                sets.warm(folder)
            labels = list(found)
            labels = (labels[number % 3 :] + labels[: number % 3]) * TURNS  # each comes first now and then
            folders = [pictures.folders[label] for label in labels]
            facts = module(CHILD, GIB, "account", RAM, str(BROKEN_LIMIT), *folders)
            for label, one in zip(labels, facts["accounts"], strict=True):
                found[label].append(Account.of(one))
    faults = all_faults(pictures, found)
    losses = {label: _losses(found, label) for label in ("corrupt", "slow")}
    lost = statistics.median(losses["corrupt"])
    more = len(pictures.slow) * (times - 1) / pictures.samples
    return Row(
        f"one epoch of {pictures.samples} JPEGs of 500×375 to 224×224×3 in {RAM}, {len(pictures.corrupt)} of "
        f"them cut short or partly erased, then {len(pictures.slow)} more with {SLOW_SIDES**2} × the "
        f"pixels; {ROUNDS} processes, in each {TURNS} turns of all sets",
        "every run completes, lists exactly the corrupt files, delivers each other sample where the sound "
        "set does, and the same substitutes each time; at most 5 % fewer samples/s with corrupt files",
        not faults and lost <= 0.05,
        [
            ("account", "; ".join(faults) or
             f"right in {sum(map(len, found.values()))} runs: {len(pictures.corrupt)} files listed where "
             "they are corrupt, as many substitutes, the same in each"),
            ("throughput lost with 1 % corrupt", f"{_span(losses['corrupt'])}; processor time "
             f"{_more_cpu(found, 'corrupt'):+.1%}"),
            ("throughput lost with corrupt and slow", f"{_span(losses['slow'])}; processor time "
             f"{_more_cpu(found, 'slow'):+.1%}"),
            ("a slow picture by itself", f"{times:.0f} × the time of others, {more:.0%} more work in all, "
             f"which alone is a loss of {more / (1 + more):.1%}"),
            *((f"{label} set", _pace(accounts)) for label, accounts in found.items()),
        ],
    )  # fmt: skip


def picture_sets(
    work: sets.WorkSet, folder: Path, broken_share: float = BROKEN_SHARE, slow_share: float = SLOW_SHARE
) -> Pictures:
    """Copies of a set of photographs below `folder`, two of them spoilt."""
    draw = np.random.default_rng(8)
    count = [max(1, round(share * work.samples)) for share in (broken_share, slow_share)]
    picked = draw.choice(work.samples, sum(count), replace=False).tolist()
    corrupt, slow = picked[: count[0]], picked[count[0] :]
    folders = {label: folder / label for label in ("sound", "corrupt", "slow")}
    names = {number: f"{number:05d}.jpg" for number in picked}
    shutil.copytree(work.folder, folders["sound"])
    shutil.copytree(work.folder, folders["corrupt"])
    for k, number in enumerate(corrupt):
        _spoil(folders["corrupt"] / names[number], erase=bool(k % 2))
    shutil.copytree(folders["corrupt"], folders["slow"])
    for number in slow:
        _enlarge(folders["slow"] / names[number], draw)
    return Pictures(folders, work.samples, frozenset(corrupt), frozenset(slow))


def _spoil(path: Path, erase: bool) -> None:
    """Cut a JPEG short; or set some of its bytes as erased flash has them. Its header stays whole."""
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    if erase:
        data[middle : middle + ERASED_BYTES] = b"\xff" * ERASED_BYTES
    else:
        del data[middle:]
    path.write_bytes(data)


def _enlarge(path: Path, draw: np.random.Generator) -> None:
    """Make a JPEG wider and higher, with noise, as a camera would have it; its number stays."""
    import simplejpeg

    x_HWC = simplejpeg.decode_jpeg(path.read_bytes())
    big = x_HWC.repeat(SLOW_SIDES, 0).repeat(SLOW_SIDES, 1)
    ground = big[: -x_HWC.shape[0] // 10 * SLOW_SIDES]  # above the marks of the number
    ground[:] = ground // 2 + 64 + draw.integers(0, 24, ground.shape, np.uint8)
    path.write_bytes(simplejpeg.encode_jpeg(big, 90))


def slowness(pictures: Pictures) -> float:
    """How many times as long as another picture a slow one takes to be decoded and resized, by itself."""

    def seconds(number: int) -> float:
        data = (pictures.folders["slow"] / f"{number:05d}.jpg").read_bytes()
        began = time.perf_counter()
        picture(data, scaled=False)
        return time.perf_counter() - began

    others = [n for n in range(pictures.samples) if n not in pictures.corrupt | pictures.slow][:50]
    return statistics.median(map(seconds, pictures.slow)) / statistics.median(map(seconds, others))


def all_faults(pictures: Pictures, found: Mapping[str, Sequence[Account]]) -> list[str]:
    """What is wrong with the accounts of all runs, in words; nothing if all are right."""
    order = found["sound"][0].samples
    wrong = []
    for label, accounts in found.items():
        corrupt = frozenset[int]() if label == "sound" else pictures.corrupt
        for one in accounts:
            wrong += [f"{label}: {fault}" for fault in faults_of(one, order, corrupt)]
            if one.samples != accounts[0].samples:
                wrong.append(f"{label}: other samples than in the run before")
    if found["corrupt"][0].samples != found["slow"][0].samples:
        wrong.append("slow: other substitutes than without slow pictures")
    return sorted(set(wrong))


def faults_of(one: Account, order: Sequence[int], corrupt: frozenset[int]) -> list[str]:
    """What is wrong with an account; `order` are the samples of the epoch, all of them sound."""
    faults = []
    if sorted(order) != list(range(len(order))):
        faults.append("the sound set did not deliver each sample once")
    if one.numbers != one.samples:
        faults.append("pictures are not the samples that they are said to be")
    if sorted(one.broken) != [(f"{n:05d}.jpg", n, n + 1) for n in sorted(corrupt)]:
        faults.append(f"{len(one.broken)} files listed, not the {len(corrupt)} corrupt ones")
    if corrupt & set(one.samples):
        faults.append("a corrupt sample was delivered")
    if len(one.samples) != len(order):
        faults.append(f"{len(one.samples)} samples delivered, not {len(order)}")
    elif any(a != b for a, b in zip(one.samples, order, strict=True) if b not in corrupt):
        faults.append("a sound sample was replaced")
    return faults


def _losses(found: Mapping[str, Sequence[Account]], label: str) -> list[float]:
    """Share of the samples/s of the sound set that is lost, in each turn."""
    return [1 - one.rate / sound.rate for one, sound in zip(found[label], found["sound"], strict=True)]


def _more_cpu(found: Mapping[str, Sequence[Account]], label: str) -> float:
    """How much more processor time than the sound set takes: neighbours on the machine blur it less."""
    pairs = zip(found[label], found["sound"], strict=True)
    return statistics.median(one.cpu_seconds / sound.cpu_seconds for one, sound in pairs) - 1


def _span(losses: Sequence[float]) -> str:
    return f"{statistics.median(losses):+.1%} ({min(losses):+.1%} to {max(losses):+.1%})"


def _pace(accounts: Sequence[Account]) -> str:
    rates = [one.rate for one in accounts]
    stall = statistics.median(one.stall_seconds / one.seconds for one in accounts)
    longest = max(one.longest_wait_seconds for one in accounts)
    cpu = statistics.median(one.cpu_seconds / len(one.samples) * 1000 for one in accounts)
    return (
        f"{statistics.median(rates):.0f} samples/s ({min(rates):.0f}–{max(rates):.0f}), {cpu:.3g} "
        f"CPU-s/1000, stall {stall:.0%} (the loop does nothing else), longest wait {longest:.2f} s"
    )
