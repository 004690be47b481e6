"""A full disk loses nothing that was whole and leaves nothing that is half."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from caudal.core.errors import DiskFull
from caudal.models.unet import UNet, UNetConfig
from caudal.training import checkpoint
from caudal.training.adamw import AdamW
from caudal.training.checkpoint import Progress


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True
        ).returncode
    )
    if not mounted:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


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
