"""How others do the four jobs of the kill matrix, each as its documentation shows, in their own environment.

`python memory_peers.py JOB WAY FOLDER`. Prints a JSON object at the end of a run that got there. It knows
nothing of Caudal, and is told of no budget: none of these ways can be.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

STEPS, BATCH, SIDE, CLASSES = 12, 16, 512, 2


class Block(nn.Sequential):
    """Two convolutions."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__(
            nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(True),
            nn.Conv2d(o, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(True),
        )  # fmt: skip


class Net(nn.Module):
    """A plain U-Net, 16 channels at the finest of four levels."""

    def __init__(self, bands: int) -> None:
        super().__init__()
        widths = [16, 32, 64, 128]
        self.down = nn.ModuleList(Block(i, o) for i, o in zip([bands, *widths[:-1]], widths, strict=True))
        self.up = nn.ModuleList(Block(a + b, a) for a, b in itertools.pairwise(widths))
        self.head = nn.Conv2d(widths[0], CLASSES, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of every pixel."""
        skips = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        x = skips.pop()
        for block in reversed(self.up):
            skip = skips.pop()
            x = block(torch.cat([skip, F.interpolate(x, skip.shape[2:])], 1))
        scores: torch.Tensor = self.head(x)
        return scores


class Scenes(torch.utils.data.Dataset[Any]):
    """A whole image a sample, resized to one size, as the seeds have it."""

    def __init__(self, folder: Path) -> None:
        self.images = sorted((folder / "scenes" / "images").glob("*.tif"))

    def __len__(self) -> int:
        return 100 * len(self.images)

    def __getitem__(self, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        import rasterio

        path = self.images[k % len(self.images)]
        with rasterio.open(path) as image, rasterio.open(path.parents[1] / "masks" / path.name) as mask:
            x, y = image.read().astype(np.float32) / 4000, mask.read(1).astype(np.int64)
        x_1CHW = F.interpolate(torch.from_numpy(x)[None], (SIDE, SIDE), mode="bilinear")
        y_11HW = F.interpolate(torch.from_numpy(y)[None, None].float(), (SIDE, SIDE))
        return x_1CHW[0], y_11HW[0, 0].long()


def train_seed(folder: Path) -> None:
    """All images in memory, then a plain loop."""
    scenes = Scenes(folder)
    held = [scenes[k] for k in range(len(scenes.images))]
    _steps((torch.stack(x), torch.stack(y)) for x, y in _cut(held))


def train_workers(folder: Path) -> None:
    """DataLoader with two workers."""
    _steps(torch.utils.data.DataLoader(Scenes(folder), BATCH, num_workers=2, shuffle=True))


def train_lightning(folder: Path) -> None:
    """Trainer after its BatchSizeFinder."""
    import lightning as L
    from lightning.pytorch.tuner import Tuner

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.batch_size = Net(5), 2

        def training_step(self, batch: Any, _number: int) -> torch.Tensor:
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters())

        def train_dataloader(self) -> Any:
            return torch.utils.data.DataLoader(Scenes(folder), self.batch_size)

    silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(max_steps=STEPS, accelerator="cpu", **silent)
    module = Module()
    Tuner(trainer).scale_batch_size(module, mode="power", steps_per_trial=1, max_trials=6)
    trainer.fit(module)


def sequences_seed(folder: Path) -> None:
    """All files in memory, no worker."""
    held = [torch.load(p, weights_only=True) for p in sorted((folder / "sequences").glob("*.pt"))]
    _lstm(_padded(part) for part in _chunks(held, BATCH))


def sequences_workers(folder: Path) -> None:
    """An IterableDataset: files split over two workers, and a shuffle buffer, as seed 001 has it."""

    class Files(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            info = torch.utils.data.get_worker_info()
            mine = sorted((folder / "sequences").glob("*.pt"))[
                info.id if info else 0 :: info.num_workers if info else 1
            ]
            held: list[Any] = []
            for path in mine:
                held.append(torch.load(path, weights_only=True))
                if len(held) > 256:
                    yield held.pop(np.random.randint(len(held)))
            yield from held

    _lstm(torch.utils.data.DataLoader(Files(), BATCH, num_workers=2, collate_fn=_padded))


def raster_full(folder: Path) -> None:
    """The whole raster through tiles of 512, scores of the whole held."""
    import rasterio

    with rasterio.open(folder / "raster.tif") as file:
        x = torch.from_numpy(file.read().astype(np.float32) / 255)
    net, (high, wide) = Net(3).eval(), x.shape[1:]
    scores = torch.zeros(CLASSES, high, wide)
    with torch.inference_mode():
        for row in range(0, high - 511, 512):
            for col in range(0, wide - 511, 512):
                scores[:, row : row + 512, col : col + 512] = net(
                    x[None, :, row : row + 512, col : col + 512]
                )[0]
    _write(folder, scores.argmax(0).byte().numpy())


def raster_monai(folder: Path) -> None:
    """MONAI's sliding window, which blends over the whole raster."""
    import rasterio
    from monai.inferers import sliding_window_inference

    with rasterio.open(folder / "raster.tif") as file:
        x = torch.from_numpy(file.read().astype(np.float32) / 255)[None]
    with torch.inference_mode():
        scores = sliding_window_inference(x, (512, 512), 4, Net(3).eval(), overlap=0.125, mode="gaussian")
    _write(folder, scores[0].argmax(0).byte().numpy())


def weights_torch(folder: Path) -> None:
    """`torch.load` and `load_state_dict`, then bfloat16."""
    model = large()
    model.load_state_dict(torch.load(folder / "large.pt", weights_only=True))
    _touch(model.to(torch.bfloat16))


def weights_accelerate(folder: Path) -> None:
    """An empty model and `load_checkpoint_and_dispatch`, with the target dtype."""
    from accelerate import init_empty_weights, load_checkpoint_and_dispatch

    with init_empty_weights():
        model = large()
    _touch(
        load_checkpoint_and_dispatch(
            model, str(folder / "large.safetensors"), {"": "cpu"}, dtype=torch.bfloat16
        )
    )


def large() -> nn.Module:
    """Weights of the shapes in `large.json`, not filled."""
    shapes = json.loads(Path(sys.argv[3], "large.json").read_text())
    return nn.ParameterDict({k.replace(".", "_"): nn.Parameter(torch.empty(v)) for k, v in shapes.items()})


def _touch(model: nn.Module) -> None:
    print(json.dumps({"sum": sum(float(w.detach().sum()) for w in model.parameters())}))


def _write(folder: Path, classes_HW: Any) -> None:
    import rasterio

    with rasterio.open(folder / "raster.tif") as file:
        profile = file.profile | {"count": 1, "dtype": "uint8"}
    with rasterio.open(folder / f"out {sys.argv[2]}.tif", "w", **profile) as out:
        out.write(classes_HW, 1)


def _steps(batches: Any) -> None:
    net = Net(5)
    optimizer = torch.optim.AdamW(net.parameters())
    for number, (x, y) in enumerate(batches, 1):
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if number == STEPS:
            return


def _cut(held: list[Any]) -> Iterator[Any]:
    while True:
        for part in _chunks(held, BATCH):
            yield tuple(zip(*part, strict=True))


def _chunks(held: list[Any], size: int) -> Iterator[list[Any]]:
    for first in range(0, len(held), size):
        yield held[first : first + size]


def _padded(samples: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    x = nn.utils.rnn.pad_sequence([s["sequence"] for s in samples], batch_first=True)
    return x, torch.tensor([int(s["label"]) for s in samples])


def _lstm(batches: Any) -> None:
    x, y = next(iter(batches))
    net, head = nn.LSTM(x.shape[2], 64, batch_first=True), nn.Linear(64, CLASSES)
    optimizer = torch.optim.AdamW([*net.parameters(), *head.parameters()])
    for x, y in batches:
        out, _state = net(x)
        F.cross_entropy(head(out.mean(1)), y).backward()
        optimizer.step()
        optimizer.zero_grad()


WAYS: dict[str, dict[str, Callable[[Path], None]]] = {
    "train": {"seed": train_seed, "workers": train_workers, "lightning": train_lightning},
    "sequences": {"seed": sequences_seed, "workers": sequences_workers},
    "raster": {"full": raster_full, "monai": raster_monai},
    "weights": {"torch": weights_torch, "accelerate": weights_accelerate},
}

if __name__ == "__main__":
    torch.set_num_threads(2)
    began = time.perf_counter()
    WAYS[sys.argv[1]][sys.argv[2]](Path(sys.argv[3]))
    print(json.dumps({"seconds": time.perf_counter() - began}))
