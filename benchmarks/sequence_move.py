"""A user's own loaders beside the stream: `.pt` files of many sequences each, an LSTM that learns from them.

The first form is a map-style set with `num_workers=0`, whose items open their file (the last one stays open).
The second is an `IterableDataset` that deals files to workers and shuffles in a buffer of 1000 samples. All
three train the same network on batches of 32; each runs in a group of its own and is timed after a warm-up.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tests.cgroups import run_in_group

from benchmarks.children import GIB, MIB, caudal, error_of, last_object, mib
from benchmarks.rows import Row

FILES, IN_FILE, FEATURES, BATCH = 400, 100, 256, 32
ROUNDS, WARM_SECONDS, SECONDS = 3, 3.0, 9.0
LIMIT = {"ours": 512 * MIB, "first": 4 * GIB, "second": 4 * GIB}
WORKERS, WIDTH = 2, 8


def make(folder: Path, files: int = FILES) -> Path:
    """About 4 GB: lists of samples (sequence, label, id), lengths log-normal around 100 steps."""
    import torch

    folder.mkdir(parents=True)
    noise = torch.randn(400, FEATURES)
    for k in range(files):
        draw = np.random.default_rng(k)
        lengths = np.clip(draw.lognormal(4.5, 0.4, IN_FILE), 20, 380).astype(int).tolist()
        samples = []
        for j, length in enumerate(lengths):
            label = (k + j) % 2
            sequence = noise[:length].clone()
            sequence[:, 0] += label
            samples.append(
                {"sequence": sequence, "label": torch.tensor(label), "id": torch.tensor(k * 100 + j)}
            )
        torch.save(samples, folder / f"part{k:04d}.pt")
    return folder


def row() -> Row:
    """Rounds in turn, then one epoch by `caudal train`."""
    with tempfile.TemporaryDirectory() as name:
        folder = make(Path(name) / "set")
        found: dict[str, list[dict[str, float]]] = {way: [] for way in LIMIT}
        for _round in range(ROUNDS):
            for way, limit in LIMIT.items():
                command = [sys.executable, "-m", "benchmarks.sequence_move", way, str(folder)]
                ended = run_in_group(command, limit, 200)
                found[way].append({**last_object(ended), "charged": float(ended.peak_charged)})
        spec = Path(name) / "spec.toml"
        steps = FILES * IN_FILE * 4 // 5 // BATCH
        spec.write_text(
            f'task = "sequence"\nram = "512MiB"\n[data]\nimages = ["{folder}"]\n[model]\nname = "recurrent"\n'
            f"[model.config]\nwidth = 8\nbidirectional = false\n[training]\nsteps = {steps}\n"
        )
        result, ended = caudal(512 * MIB, "train", spec, "-o", Path(name) / "run")
    peak, predicted = result["peak_bytes"]["ram"], result["predicted_bytes"]["ram"]
    rate = {way: statistics.median(one["rate"] for one in runs) for way, runs in found.items()}
    held = {way: max(one["held"] for one in runs) for way, runs in found.items()}
    trained = result["samples_per_second"]
    first, second = trained / rate["first"], trained / rate["second"]
    return Row(
        f"{FILES} .pt files of {IN_FILE} sequences (4 GB), LSTM of width {WIDTH}: the stream beside a "
        f"map-style set (num_workers=0) and an IterableDataset with {WORKERS} workers",
        "an epoch by caudal train in 512 MiB: ≥ 3 × the first, ≥ 1.3 × the second at less than half its RAM, "
        "stall ≤ 2 %",
        first >= 3 and second >= 1.3 and peak < held["second"] / 2 and peak <= 512 * MIB
        and ended.oom_kills == 0 and result["stall"] <= 0.02,
        [
            *((f"{way}: samples/s, charged", f"{rate[way]:.0f}, {mib(held[way])}") for way in LIMIT),
            ("the stream in the same loop ÷ first, ÷ second", f"{rate['ours'] / rate['first']:.2f}, "
             f"{rate['ours'] / rate['second']:.2f}"),
            ("caudal train ÷ first, ÷ second", f"{first:.2f}, {second:.2f}"),
            ("its peak ÷ what the second holds", f"{peak / held['second']:.2f}"),
            ("ours: time spent waiting", f"{statistics.median(o['stall'] for o in found['ours']):.1%}"),
            ("one epoch by caudal train: peak, predicted", f"{mib(peak)}, {mib(predicted)} "
             f"({error_of(predicted, peak)})"),
            ("its time, samples/s, stall, kills", f"{result['seconds']:.0f} s, "
             f"{result['samples_per_second']:.0f}, {result['stall']:.1%}, {ended.oom_kills}"),
        ],
    )  # fmt: skip


def batches(way: str, folder: Path) -> Iterator[tuple[Any, Any, Any]]:
    """Padded sequences (B, T, F), lengths and labels, without end."""
    if way == "ours":
        import caudal

        for batch in caudal.stream(folder, BATCH, ram="96MiB", epochs=100, threads=2):
            x = batch["sequence"]
            yield x.padded()[0], x.lengths, batch["label"]
        return
    import torch

    files = sorted(folder.iterdir())
    if way == "first":
        dataset: Any = _first(files)
        loader: Any = torch.utils.data.DataLoader(dataset, BATCH, shuffle=True, collate_fn=_padded)
    else:
        loader = torch.utils.data.DataLoader(
            _second(files), BATCH, num_workers=WORKERS, collate_fn=_padded, prefetch_factor=2
        )
    while True:
        yield from loader


def _padded(samples: list[Any]) -> tuple[Any, Any, Any]:
    import torch

    lengths = torch.tensor([len(one["sequence"]) for one in samples])
    x = torch.nn.utils.rnn.pad_sequence([one["sequence"] for one in samples], batch_first=True)
    return x, lengths, torch.stack([one["label"] for one in samples])


def _first(files: list[Path]) -> Any:
    import torch

    class MapStyle(torch.utils.data.Dataset[Any]):
        """An item opens its file, unless it is the one that is open."""

        number, samples = -1, ()

        def __len__(self) -> int:
            return len(files) * IN_FILE

        def __getitem__(self, k: int) -> Any:
            number, within = divmod(k, IN_FILE)
            if number != self.number:
                self.samples, self.number = torch.load(files[number], weights_only=True), number
            return self.samples[within]

    return MapStyle()


def _second(files: list[Path]) -> Any:
    import torch

    class Streaming(torch.utils.data.IterableDataset[Any]):
        """Files are dealt to workers; samples are drawn from a buffer of 1000."""

        def __iter__(self) -> Iterator[Any]:
            info = torch.utils.data.get_worker_info()
            mine = files if info is None else files[info.id :: info.num_workers]
            draw = random.Random(info.seed if info else 0)
            draw.shuffle(mine)
            buffer: list[Any] = []
            for file in mine:
                for sample in torch.load(file, weights_only=True):
                    buffer.append(sample)
                    if len(buffer) >= 1000:
                        k = draw.randrange(len(buffer))
                        buffer[k], buffer[-1] = buffer[-1], buffer[k]
                        yield buffer.pop()
            draw.shuffle(buffer)
            yield from buffer

    return Streaming()


def measure(way: str, folder: Path) -> dict[str, float]:
    """Samples a second of training, and what the processes are charged with at the most."""
    from caudal.memory.meters import Watch
    from caudal.runs.machine import settle

    settle()
    import torch

    torch.set_num_threads(2)
    torch.manual_seed(0)
    lstm, head = torch.nn.LSTM(FEATURES, WIDTH, batch_first=True), torch.nn.Linear(WIDTH, 1)
    optimizer = torch.optim.SGD([*lstm.parameters(), *head.parameters()], lr=1e-2)
    began = time.perf_counter()
    samples, warm, waited, asked = 0, 0.0, 0.0, began
    with Watch() as watch:
        for x, lengths, y in batches(way, folder):
            now = time.perf_counter()
            if not warm and now - began > WARM_SECONDS:
                warm, samples, waited, asked = now, 0, 0.0, now
            waited += now - asked
            packed = torch.nn.utils.rnn.pack_padded_sequence(
                x, lengths, batch_first=True, enforce_sorted=False
            )
            _all, (last, _cell) = lstm(packed)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(head(last[-1])[:, 0], y.float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            samples += len(y)
            asked = time.perf_counter()
            if warm and asked - warm > SECONDS:
                break
    seconds = asked - warm
    return {"rate": samples / seconds, "held": float(watch.peak), "stall": waited / seconds}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]))))
