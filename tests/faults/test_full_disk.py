"""A full disk loses nothing that was whole and leaves nothing that is half."""

from pathlib import Path

import pytest

from caudal.core.errors import DiskFull
from caudal.models.unet import UNet, UNetConfig
from caudal.training import checkpoint
from caudal.training.adamw import AdamW
from caudal.training.checkpoint import Progress


def test_a_checkpoint_on_a_full_disk_leaves_the_earlier_one(small_disk: Path) -> None:
    model = UNet(3, 2, UNetConfig(width=8, depth=3))
    optimizer = AdamW(model.parameters(), 1e-3, 0.01)
    checkpoint.save(small_disk, Progress(step=1), model, model, optimizer)
    before = checkpoint.found(small_disk)[0].read_bytes()
    (small_disk / "ballast").write_bytes(b"x" * (3 * 2**20 - len(before) - 500_000))
    with pytest.raises(DiskFull) as caught:
        checkpoint.save(small_disk, Progress(step=2), model, model, optimizer)
    assert caught.value.hint
    assert [p.name for p in checkpoint.found(small_disk)] == ["step-00000001.safetensors"]
    assert checkpoint.found(small_disk)[0].read_bytes() == before
    assert not list(small_disk.glob("*.part"))
