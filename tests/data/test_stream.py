"""The stream: the same bytes for any threads and any start, every block once, no byte beyond its arena."""

import threading
from pathlib import Path

import numpy as np
import pytest

from caudal.core.errors import BadValues, UnreadableFile
from caudal.core.geometry import Window
from caudal.core.labels import IGNORE
from caudal.data.chunk_reader import ChunkReader, OpenFiles
from caudal.data.chunks import Cutter
from caudal.data.classes import Classes
from caudal.data.index import Index, build
from caudal.data.pairs import find_pairs
from caudal.data.readers.base import Pixels
from caudal.data.stream import PatchStream, StreamSize
from caudal.memory.arena import Arena
from tests.data.sets import blob_set, write_tiff

BATCH, PATCH = 4, 32


class CountingFiles(OpenFiles):
    """Remembers every window that was read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[tuple[str, Window]] = []
        self.lock = threading.Lock()

    def read(self, path: Path, window: Window) -> Pixels:
        with self.lock:
            self.reads.append((str(path), window))
        return super().read(path, window)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    folder = blob_set(
        tmp_path_factory.mktemp("set"),
        [(150, 90), (64, 64), (33, 200), (20, 20), (300, 70)],
        tiled=True, blockxsize=64, blockysize=64, compress="deflate",
    )  # fmt: skip
    return build(find_pairs([folder], []))


def batches(
    index: Index,
    stop: int,
    start: int = 0,
    threads: int = 2,
    k: int = 3,
    files: OpenFiles | None = None,
    overlap: bool = True,
) -> list[tuple[bytes, bytes, tuple[int, ...]]]:
    cutter = Cutter(index, tuple(range(len(index))), PATCH, seed=5)
    reader = ChunkReader(
        index, Classes(values=(0, 1)), np.zeros((1, index.bands), np.float32), files or OpenFiles()
    )
    arena = Arena(StreamSize.of(cutter, BATCH, k).arena_bytes)
    with PatchStream(
        cutter,
        reader,
        arena,
        batch=BATCH,
        open_chunks=k,
        threads=threads,
        start=start,
        stop=stop,
        overlap=overlap,
    ) as stream:
        found = [(b.x_BHWC.tobytes(), b.y_BHW.tobytes(), tuple(b.sample_B.tolist())) for b in stream]
    assert arena.peak <= arena.capacity
    return found


def test_threads_and_the_start_change_who_works_and_nothing_else(index: Index) -> None:
    whole = batches(index, 40, threads=1)
    assert batches(index, 40, threads=4) == whole
    for threads in (1, 3):
        assert batches(index, 40, threads=threads, overlap=False) == whole
    for start in (1, 7, 19, 38):
        assert batches(index, 40, start=start, threads=3) == whole[start:]


def test_an_epoch_delivers_every_sample_once(index: Index) -> None:
    cutter = Cutter(index, tuple(range(len(index))), PATCH, seed=5)
    samples = [s for _x, _y, numbers in batches(index, 3 * cutter.samples // BATCH) for s in numbers]
    assert samples == list(range(len(samples)))


def test_each_chunk_is_read_once_an_epoch(index: Index) -> None:
    files = CountingFiles()
    cutter = Cutter(index, tuple(range(len(index))), PATCH, seed=5)
    epochs = 4
    batches(index, epochs * cutter.samples // BATCH, files=files)
    per_file: dict[str, int] = {}
    for path, window in files.reads:
        per_file[path] = per_file.get(path, 0) + window.area_px
    for i in range(len(index)):
        area = int(index.height[i] * index.width[i])
        assert per_file[str(index.image(i))] <= epochs * area
        assert per_file[str(index.mask(i))] <= epochs * area


def test_patches_are_pieces_of_their_image_and_mask(index: Index) -> None:
    import rasterio

    images = {}
    for i in range(len(index)):
        with rasterio.open(index.image(i)) as x, rasterio.open(index.mask(i)) as y:
            images[i] = (np.moveaxis(x.read(), 0, 2), y.read(1))
    for x_bytes, y_bytes, _samples in batches(index, 12):
        x_BHWC = np.frombuffer(x_bytes, np.uint16).reshape(BATCH, PATCH, PATCH, 3)
        y_BHW = np.frombuffer(y_bytes, np.uint8).reshape(BATCH, PATCH, PATCH)
        for x, y in zip(x_BHWC, y_BHW, strict=True):
            assert any(_holds(image, mask, x, y) for image, mask in images.values())


def _holds(image: np.ndarray, mask: np.ndarray, x: np.ndarray, y: np.ndarray) -> bool:
    for row, col in zip(*np.nonzero((image == x[0, 0]).all(2)), strict=True):
        high, wide = min(PATCH, image.shape[0] - row), min(PATCH, image.shape[1] - col)
        if (image[row : row + high, col : col + wide] == x[:high, :wide]).all():
            known = y[:high, :wide] != IGNORE
            return bool((mask[row : row + high, col : col + wide][known] == y[:high, :wide][known]).all())
    return False


def test_holes_are_filled_and_not_learned_from(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((64, 64, 2)).astype(np.float32)
    x[10:20, 5:30, 1] = np.nan
    write_tiff(tmp_path / "images" / "a.tif", x)
    write_tiff(tmp_path / "masks" / "a.tif", np.ones((64, 64, 1), np.uint8))
    index = build(find_pairs([tmp_path], []))
    reader = ChunkReader(index, Classes(values=(0, 1)), np.array([[7.0, 8.0]], np.float32), OpenFiles())
    chunk = reader.read(0, Window(0, 0, 64, 64))
    assert (chunk.x_HWC[10:20, 5:30] == [7.0, 8.0]).all()
    assert (chunk.y_HW[10:20, 5:30] == IGNORE).all()
    assert (chunk.y_HW == IGNORE).sum() == 10 * 25


def test_an_error_in_a_thread_reaches_the_consumer(tmp_path: Path) -> None:
    folder = blob_set(tmp_path, [(80, 80)] * 4)
    index = build(find_pairs([folder], []))
    broken = index.image(2)
    broken.write_bytes(broken.read_bytes()[:-2000])
    with pytest.raises(UnreadableFile, match="scene 002"):
        batches(index, 50)


def test_a_mask_value_that_is_no_class_stops_the_stream(tmp_path: Path) -> None:
    folder = blob_set(tmp_path, [(80, 80)] * 3)
    write_tiff(folder / "masks" / "scene 001 ñ.tif", np.full((80, 80, 1), 9, np.uint8))
    index = build(find_pairs([folder], []))
    with pytest.raises(BadValues, match="9"):
        batches(index, 50)


def test_a_stream_that_is_left_early_ends_its_threads(index: Index) -> None:
    before = threading.active_count()
    for _ in range(5):
        cutter = Cutter(index, tuple(range(len(index))), PATCH, seed=5)
        fill = np.zeros((1, index.bands), np.float32)
        reader = ChunkReader(index, Classes(values=(0, 1)), fill, OpenFiles())
        arena = Arena(StreamSize.of(cutter, BATCH, 3).arena_bytes)
        with PatchStream(cutter, reader, arena, batch=BATCH, open_chunks=3, threads=3, stop=10_000) as stream:
            next(iter(stream))
    assert threading.active_count() == before
