"""Who takes part: each peer with its best settings, the environment it needs, and who is left out and why.

Settings are those that were fastest when each was tried alone (workers 0, 1, 2; prefetch; threads; GDAL's
cache; tasks of a sample or a batch). A peer that cannot run is named in the row, never dropped in silence.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.loaders.conversions import convert
from benchmarks.loaders.harness import ROOT, Child
from benchmarks.loaders.rounds import OURS, Entry
from benchmarks.loaders.sets import WorkSet
from benchmarks.peers.child import Job
from benchmarks.peers.setup import python_of

PEERS = "benchmarks.peers."
OWN = "own"
NEEDS = {
    "torch_dataloader": "torch", "mapped_files": "safetensors", "decoded_blocks": "tifffile",
    "pyg_dataloader": "torch_geometric", "plain_gather": "numpy", "spdl_threads": "spdl.pipeline",
    "grain_threads": "grain", "litdata_chunks": "litdata", "webdataset_tar": "webdataset",
    "tf_data": "tensorflow",
}  # fmt: skip


@dataclass(frozen=True)
class Peer:
    """A way to load: module, environment (`own` is Caudal's), settings; `converted`: has its own format."""

    label: str
    module: str
    environment: str = OWN
    options: Mapping[str, Any] = field(default_factory=dict)
    converted: bool = False


def _workers(label: str, module: str, counts: Sequence[int], **more: Any) -> list[Peer]:
    options = more.pop("options", {})
    return [
        Peer(f"{label}, {count} workers", module, options={"workers": count} | options, **more)
        for count in counts
    ]


def _rasterio(cache_mb: int | None) -> list[Peer]:
    name = "default" if cache_mb is None else f"{cache_mb} MB"
    options = {} if cache_mb is None else {"gdal_cache": cache_mb}
    return _workers(
        f"DataLoader, rasterio windows, GDAL cache {name}", "torch_dataloader", (0, 2), options=options
    )


def _litdata(options: Mapping[str, Any] | None = None) -> list[Peer]:
    return _workers("LitData (own format)", "litdata_chunks", (0, 2), environment="torch", converted=True,
                    options=dict(options or {}))  # fmt: skip


def _tf(label: str = "tf.data TFRecord") -> list[Peer]:
    return [Peer(label, "tf_data", "tensorflow", converted=True)]


SCENES = [
    *_rasterio(None),
    *_rasterio(64),
    Peer(
        "SPDL threads, rasterio, GDAL cache 64 MB, a task a batch",
        "spdl_threads",
        "torch",
        {"gdal_cache": 64},
    ),
    Peer("Grain threads, rasterio, GDAL cache 64 MB", "grain_threads", "torch", {"gdal_cache": 64}),
    Peer("tifffile blocks + imagecodecs, 2 threads", "decoded_blocks"),
]


def photographs(scaled: bool) -> list[Peer]:
    """JPEG to 224: decoded whole, or `scaled` by the decoder."""
    options = {"scaled": scaled}
    return [
        *_workers("DataLoader simplejpeg + cv2", "torch_dataloader", (0, 1, 2), options=options),
        Peer("SPDL threads, a task a batch", "spdl_threads", "torch", options),
        Peer("Grain threads", "grain_threads", "torch", options),
        *_litdata(options)[1:],
        *_workers(
            "WebDataset tar", "webdataset_tar", (2,), environment="torch", converted=True, options=options
        ),
        *([] if scaled else _tf("tf.data TFRecord, its own decoder")),
    ]


RAGGED = [
    Peer("mapped safetensors, no loader", "mapped_files"),
    *_workers("DataLoader safetensors", "torch_dataloader", (0, 1, 2)),
    Peer("SPDL threads, a task a batch", "spdl_threads", "torch"),
    Peer("SPDL threads, copied", "spdl_threads", "torch", {"copied": True}),
    Peer("Grain threads", "grain_threads", "torch"),
    *_litdata(),
    *_workers("WebDataset tar", "webdataset_tar", (0, 2), environment="torch", converted=True),
    *_tf(),
]

CHIPS = [
    Peer("plain gather from mapped shards", "plain_gather"),
    *_workers("DataLoader, mapped shards", "torch_dataloader", (0, 2)),
    Peer("SPDL threads, mapped shards, a task a batch", "spdl_threads", "torch"),
    Peer("Grain threads, mapped shards", "grain_threads", "torch"),
    *_litdata(),
    *_tf(),
]

TENSORS = [
    Peer("plain gather in RAM", "plain_gather"),
    *_workers("DataLoader, tensors in RAM", "torch_dataloader", (0, 1, 2)),
    Peer("SPDL threads, tensors in RAM", "spdl_threads", "torch"),
    Peer("Grain threads, tensors in RAM", "grain_threads", "torch"),
]


def graphs(node_budget: int) -> list[Peer]:
    """Graphs in RAM, in batches of equal count, and by a budget of nodes."""
    return [
        Peer("plain gather: offsets, all in RAM", "plain_gather"),
        *_workers("PyG DataLoader, list in RAM", "pyg_dataloader", (0, 2)),
        Peer(
            "PyG DataLoader, list in RAM, node budget", "pyg_dataloader", options={"node_budget": node_budget}
        ),
    ]


TABLE = [
    Peer("plain gather from packed columns", "plain_gather"),
    *_workers("DataLoader, packed columns", "torch_dataloader", (0, 2)),
    *_workers("DataLoader, list of tuples", "torch_dataloader", (0, 2), options={"tuples": True}),
]


@cache
def why_not(environment: str, module: str) -> str:
    """Why a peer cannot run here; empty if it can."""
    python = _python(environment)
    if not Path(python).exists():
        return f"no environment {environment!r} (make it: python -m benchmarks.peers.setup)"
    trial = subprocess.run(
        [python, "-c", f"import {NEEDS[module]}"], cwd=ROOT, capture_output=True, text=True
    )
    lines = trial.stderr.strip().splitlines()
    return "" if trial.returncode == 0 else (lines[-1] if lines else f"ended with {trial.returncode}")


def _python(environment: str) -> str:
    return sys.executable if environment == OWN else str(python_of(environment))


def peers(wanted: Sequence[Peer], work: WorkSet, job: Job, cache: Path) -> tuple[list[Entry], list[str]]:
    """The peers that can run, with the set in the format they read; and a sentence for each that cannot.

    A peer with its own format adds a sentence too: what writing it cost.
    """
    found, left_out = [], []
    for peer in wanted:
        reason = why_not(peer.environment, peer.module)
        module, python, own = PEERS + peer.module, _python(peer.environment), ""
        if not reason and peer.converted:
            try:
                own = str(convert(module, python, work, cache).folder)
            except RuntimeError as error:
                reason = f"cannot write its format: {error}"
        if reason:
            left_out.append(f"{peer.label}: {reason}")
        else:
            found.append(Entry(Child(peer.label, module, python, dict(peer.options)), _job(job, work, own)))
    return found, left_out


def conversion_costs(wanted: Sequence[Peer], work: WorkSet, cache: Path) -> list[tuple[str, str]]:
    """What writing each format cost: seconds, libraries' start included, and bytes on disk."""
    lines = {}
    for peer in wanted:
        if peer.converted and not why_not(peer.environment, peer.module):
            name = peer.label.split(",")[0]
            try:
                done = convert(PEERS + peer.module, _python(peer.environment), work, cache)
            except RuntimeError:
                continue  # it is among those left out
            lines[name] = f"{done.seconds:.0f} s once, {done.file_bytes / 1e6:.0f} MB on disk"
    return [(f"conversion, {name}", line) for name, line in lines.items()]


def ours(work: WorkSet, job: Job, label: str = OURS, own: str = "", **options: Any) -> Entry:
    """Caudal in the same race; options are arguments of `caudal.stream`."""
    return Entry(
        Child(label, "benchmarks.loaders.caudal_child", sys.executable, options), _job(job, work, own)
    )


def _job(job: Job, work: WorkSet, own: str) -> Job:
    return Job(**{**job.__dict__, "set": str(work.folder), "own": own})
