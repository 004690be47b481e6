"""The rows of the loader benchmarks: peers and Caudal in turns, on the same work, in the same run.

A row names its target in words, who was left out and why, and says so where Caudal loses.
`CAUDAL_BENCH_ROUNDS` and `CAUDAL_BENCH_SHARE` (of the samples) make a trial smaller; figures worth quoting
need the defaults.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.loaders import ceilings, roster, sets
from benchmarks.loaders.conversions import convert
from benchmarks.loaders.roster import Peer
from benchmarks.loaders.rounds import OURS, Entry, Race, race
from benchmarks.loaders.sets import WorkSet
from benchmarks.peers.child import Job
from benchmarks.rows import Row

ROUNDS = int(os.environ.get("CAUDAL_BENCH_ROUNDS", 5))
SHARE = float(os.environ.get("CAUDAL_BENCH_SHARE", 1))
SECONDS = 2.5
MIB, MB = 2**20, 1e6
BUDGET = 128 * MIB
FRUGAL_BYTES = 300e6
# Of the budget's arena nothing is exempt; this is for Python's own objects, which are not in it.
SLACK_BYTES = 16 * MIB


def transport() -> Row:
    """Ready samples: what is left is to bring them into a batch."""
    work, job = _work("tensors"), _job(batch=32)
    found, _costs = _race(roster.TENSORS, work, job)
    most = ceilings.measure("memcpy", work.folder)["memcpy_2"]
    share = found.rate(OURS) * work.sample_bytes / most
    return Row(
        "transport: ready samples of 602 kB in batches of 32; peers from RAM, Caudal from the page cache",
        "≥ 80 % of memcpy by both cores, and ≥ the best peer",
        share >= 0.8 and found.ratio(OURS) >= 1 and _same(found),
        [("Caudal, of memcpy", f"{share:.0%} of {most / 1e9:.1f} GB/s"), *found.figures()],
    )


def ragged() -> Row:
    """Sequences of 1 to 8 MiB, pages in the cache."""
    work, job = _work("ragged"), _job(batch=8, consumer="read")
    found, costs = _race(roster.RAGGED, work, job)
    most = ceilings.measure("page", work.folder)["page_2"]
    share = found.rate(OURS) * work.sample_bytes / most
    return Row(
        "ragged tensors, 1–8 MiB a file, batches of 8, warm page cache, every byte read by the consumer; "
        "Caudal in 128 MiB",
        "≥ 0.95 × the best peer (handing out mapped files in one process), within the budget",
        found.ratio(OURS) >= 0.95 and _within(found) and _same(found),
        [
            ("Caudal, of reading the page cache", f"{share:.0%} of {most / 1e9:.1f} GB/s"),
            *found.figures(),
            *costs,
        ],
    )


def ragged_limited() -> Row:
    """The same set, four times larger than the memory group of each loader, cold at the start."""
    work = _work("ragged")
    limit = max(work.file_bytes // 4, 320 * MIB)
    job = _job(batch=8, consumer="read", seconds_most=20, samples=work.samples, warm=0)
    found, costs = _race(roster.RAGGED, work, job, limit_bytes=limit, cold=True)
    disk = ceilings.measure("disk", work.folder)["disk"]
    share = found.rate(OURS) * work.sample_bytes / disk
    died = [entry.label for entry in found.entries if found.failures(entry.label)]
    return Row(
        f"ragged tensors, {work.file_bytes / limit:.1f} × a real memory group of {limit / MIB:.0f} MiB "
        "(page cache counted), cold start, one epoch; Caudal in 128 MiB",
        "not killed, ≥ 1.5 × the best peer that lives, and ≥ 85 % of the disk",
        found.ratio(OURS) >= 1.5 and share >= 0.85 and _same(found),
        [
            ("Caudal, of the disk", f"{share:.0%} of {disk / 1e9:.2f} GB/s"),
            ("did not live", ", ".join(died) or "none"),
            *found.figures(),
            *costs,
        ],
    )


def windows_deflate() -> Row:
    """Tiled DEFLATE."""
    return _windows("tiled_deflate", "4 scenes of 4096²×5 uint16, DEFLATE tiles of 256, predictor 2")


def windows_zstd() -> Row:
    """Tiled ZSTD."""
    return _windows("tiled_zstd", "4 scenes of 4096²×5 uint16, ZSTD tiles of 256, predictor 2")


def windows_lzw() -> Row:
    """Striped LZW, whole scenes."""
    return _windows("striped_lzw", "4 scenes of 4096²×5 uint16, LZW strips of one row")


def windows_small_lzw() -> Row:
    """Striped LZW, the scenes that the project began with."""
    return _windows("small_lzw", "190 scenes of 713²×5 uint16, LZW strips of one row")


def packed() -> Row:
    """Patches that lie ready on disk: Caudal's pack beside the peers' own formats."""
    work, job = _work("chips"), _job(batch=32, consumer="read")
    pack, cost = _pack(work)
    found, costs = _race(roster.CHIPS, work, job, [roster.ours(work, job, own=pack)])
    most = ceilings.measure("page", work.folder)["page_2"]
    share = found.rate(OURS) * work.sample_bytes / most
    return Row(
        "20 000 packed patches of 128²×5 uint16, batches of 32, warm, every byte read; "
        "Caudal's pack in 128 MiB",
        "≥ 2 × the best peer with a format of its own (LitData, TFRecord), within the budget; "
        "the plain gather from mapped shards is shown beside",
        found.ratio(OURS, _with(found, "LitData", "tf.data")) >= 2 and _within(found) and _same(found),
        [
            ("Caudal ÷ best own format", _span(found, _with(found, "LitData", "tf.data"))),
            ("Caudal, of reading the page cache", f"{share:.0%} of {most / 1e9:.1f} GB/s"),
            *found.figures(),
            cost,
            *costs,
        ],
    )


def jpeg() -> Row:
    """Photographs decoded whole."""
    return _jpeg(scaled=False)


def jpeg_scaled() -> Row:
    """Photographs that the decoder may shrink."""
    return _jpeg(scaled=True)


def graphs() -> Row:
    """Small graphs, by count and by nodes."""
    work = _work("graphs")
    job, nodes = _job(batch=64), round(64 * float(work.facts["nodes"]))
    pack, cost = _pack(work)
    small: dict[str, Any] = {"ram": "64MiB", "joined": True}
    by_nodes = small | {"node_budget": nodes}
    mine = [
        roster.ours(work, job, own=pack, **by_nodes),
        roster.ours(work, job, f"{OURS}, 64 graphs a batch", own=pack, **small),
        roster.ours(work, job, f"{OURS}, JSON lines as they are", **by_nodes),
    ]
    found, costs = _race(roster.graphs(nodes), work, job, mine)
    pyg = _with(found, "PyG")
    return Row(
        f"30 000 graphs of 8–40 nodes, one graph a batch, of at most {nodes} nodes or of 64 graphs; "
        "Caudal from its pack in 64 MiB, peers from RAM",
        "≥ 5 × PyTorch Geometric's loader at its best setting; a plain gather in RAM is shown beside",
        found.ratio(OURS, pyg) >= 5 and _same(found),
        [("Caudal ÷ best PyG", _span(found, pyg)), *found.figures(), cost, *costs],
    )


def index() -> Row:
    """1.5 million samples: how long until the first batch, and what the index holds."""
    work, job = _work("table"), _job(batch=64, samples=64 * 2000)
    pack, cost = _pack(work)
    mine = [roster.ours(work, job), roster.ours(work, job, f"{OURS}, pack", own=pack)]
    found, costs = _race(roster.TABLE, work, job, mine, check=False)
    first = statistics.median(result.first_batch_seconds for result in found.results[OURS])
    return Row(
        "1.5 million rows in Parquet (`x` float32, `y` int64), shuffled, batches of 64: from the call to the "
        "first batch, libraries imported",
        "first batch within 100 ms, within the budget",
        first <= 0.1 and not found.failures(OURS) and _within(found),
        [("Caudal, first batch", f"{first * 1000:.0f} ms"), *found.figures(), cost, *costs],
    )


def stall() -> Row:
    """A small network in training, one compute thread: who keeps it waiting."""
    work, job = _work("tiled_deflate"), _job(batch=32, consumer="train", seconds_most=4)
    alone = roster.ours(work, job, f"{OURS}, the same batch again (no data)", ram="128MiB", headspace=True)
    found, costs = _race(roster.SCENES, work, job, [roster.ours(work, job, ram="128MiB"), alone], check=False)
    wait = statistics.median(result.stall for result in found.results[OURS])
    return Row(
        "training a small convolutional network (one compute thread) on 128² windows of DEFLATE tiles; "
        "Caudal in 128 MiB",
        "stall ≤ 2 % of the time, and ≥ the best peer's samples/s",
        wait <= 0.02 and found.ratio(OURS) >= 1,
        [("Caudal, stall", f"{wait:.1%}"), *found.figures(), *costs],
    )


def _windows(name: str, words: str) -> Row:
    work, job = _work(name), _job(batch=32)
    found, costs = _race(roster.SCENES, work, job)
    decoded = ceilings.measure("blocks", work.folder)
    once = decoded["blocks"] / work.sample_bytes
    frugal = found.peers(FRUGAL_BYTES)
    return Row(
        f"random windows of 128² from {words}; batches of 32, Caudal in 128 MiB. Peers draw windows evenly "
        "over the area; Caudal draws its own, from blocks that are open together",
        "≥ 85 % of decoding each block once, and ≥ 2.5 × the best peer in at most 300 MB above its base, "
        "within the budget",
        found.rate(OURS) / once >= 0.85 and found.ratio(OURS, frugal) >= 2.5 and _within(found),
        [
            ("Caudal ÷ best peer in at most 300 MB", _span(found, frugal)),
            ("each block decoded once, both cores",
             f"{decoded['blocks'] / MB:.0f} MB/s = {once:.0f} samples/s "
             f"(GDAL {decoded['gdal'] / MB:.0f}, imagecodecs {decoded['imagecodecs'] / MB:.0f} MB/s)"),
            ("Caudal, of that (more than 100 % where windows overlap)", f"{found.rate(OURS) / once:.0%}"),
            *found.figures(),
            *costs,
        ],
    )  # fmt: skip


def _jpeg(scaled: bool) -> Row:
    work, job = _work("photographs"), _job(batch=32)
    options: dict[str, Any] = {"resize": (224, 224), "scaled": scaled}
    mine = [
        roster.ours(work, job, antialias=False, **options),  # as the peers resize
        roster.ours(work, job, f"{OURS}, antialiased", **options),
    ]
    found, costs = _race(roster.photographs(scaled), work, job, mine)
    most = ceilings.measure("pictures", work.folder)["pictures_scaled" if scaled else "pictures"]
    share = found.rate(OURS) / most
    how = "shrunk by the decoder where it can" if scaled else "decoded whole"
    # Peers let the decoder shrink by eighths; Caudal by 2, 4 or 8, which is faster: other pixels.
    sound = not found.failures(OURS) if scaled else _same(found)
    return Row(
        f"4 000 JPEGs of 500×375, quality 90, {how}, to 224×224×3 (bilinear); "
        "batches of 32, Caudal in 128 MiB",
        "≥ 1.2 × the best peer" if scaled else "≥ 95 % of decoding and resizing alone on both cores",
        (found.ratio(OURS) >= 1.2 if scaled else share >= 0.95) and sound,
        [
            ("Caudal, of decoding and resizing alone", f"{share:.0%} of {most:.0f} samples/s"),
            *found.figures(),
            *costs,
        ],
    )


def _work(name: str) -> WorkSet:
    return sets.make(name, sets.default_cache(), SHARE)


def _job(
    batch: int, samples: int = 10**9, warm: int = 0, seconds_most: float = SECONDS, consumer: str = "none"
) -> Job:
    """Two batches warm up, unless a row says otherwise; the time ends a run, unless the samples do."""
    return Job("", samples, batch, consumer=consumer, warm=warm or 2 * batch, seconds_most=seconds_most)


def _race(
    peers: Sequence[Peer],
    work: WorkSet,
    job: Job,
    mine: Sequence[Entry] | None = None,
    limit_bytes: int | None = None,
    cold: bool = False,
    check: bool = True,
) -> tuple[Race, list[tuple[str, str]]]:
    """All loaders in turns; and what the peers' own formats cost."""
    entries, left_out = roster.peers(peers, work, job, sets.default_cache())
    entries = [*(mine or [roster.ours(work, job)]), *entries]
    prepare = sets.forget if cold else sets.warm
    found = race(
        entries, work.sample_bytes, ROUNDS, limit_bytes,
        lambda entry: prepare(Path(entry.job.own or entry.job.set)), left_out, check,
    )  # fmt: skip
    return found, roster.conversion_costs(peers, work, sets.default_cache())


def _pack(work: WorkSet) -> tuple[str, tuple[str, str]]:
    done = convert("benchmarks.loaders.caudal_child", sys.executable, work, sets.default_cache())
    cost = f"{done.seconds:.0f} s once, {done.file_bytes / MB:.0f} MB on disk"
    return str(done.folder), (f"conversion, {OURS}'s pack", cost)


def _with(found: Race, *words: str) -> list[str]:
    """Peers that finished, by how their label begins."""
    return [label for label in found.peers() if label.startswith(words)]


def _span(found: Race, among: Sequence[str]) -> str:
    ratios = found.ratios(OURS, among)
    if not ratios:
        return "no such peer finished"
    best = max(among, key=found.rate)
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}); {best}"


def _within(found: Race) -> bool:
    return found.above_bytes(OURS) <= BUDGET + SLACK_BYTES


def _same(found: Race) -> bool:
    """Whether Caudal finished, and delivered the samples that the others did."""
    return OURS not in found.disagreeing() and not found.failures(OURS)
