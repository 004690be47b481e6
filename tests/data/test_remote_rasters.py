"""Rasters in a store or on the web have the pixels that they have on disk, by few requests; or a sentence."""

from __future__ import annotations

import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caudal.core.errors import BadPair, DataError, UnreadableFile
from caudal.core.geometry import Window
from caudal.data import remote_file, round_trips
from caudal.data.byte_file import LocalFile, read_bytes
from caudal.data.chunk_reader import OpenFiles
from caudal.data.gdal_open import opened_by_gdal
from caudal.data.index import Index, build
from caudal.data.locations import open_with_head
from caudal.data.pairs import find_pairs, images_in
from caudal.data.readers import reader_for
from caudal.data.readers.geotiff import GeoTiffReader, TiffSource
from caudal.data.remote_file import RemoteFile
from caudal.data.round_trips import PAGE_BYTES, Paged, Runs, runs_of
from caudal.data.url import Url
from tests.data import test_remote
from tests.data.readers.tiff_files import block_tags, picture, tag_values, windows, write_gdal
from tests.data.sets import blob_set
from tests.data.test_remote import CHANGED, CONTENT, WebServer, assert_refused, put

s3, web = test_remote.s3, test_remote.web


class Asked(list[tuple[int, int]]):
    """What was asked of objects: first byte, and how many; an opening begins at -1."""

    @property
    def moved_bytes(self) -> int:
        return sum(size for _start, size in self)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Every request of the test, in order."""
    requests = Asked()
    make = remote_file._object

    class Counting:
        def __init__(self, url: str) -> None:
            self.inner = make(url)
            self.version = self.inner.version

        def head_into(self, buffer: memoryview) -> Any:
            requests.append((-1, len(buffer)))
            return self.inner.head_into(buffer)

        def read_into(self, offset: int, buffer: memoryview) -> Any:
            requests.append((offset, len(buffer)))
            return self.inner.read_into(offset, buffer)

    monkeypatch.setattr(remote_file, "_object", Counting)
    return requests


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause between tries."""
    monkeypatch.setattr(remote_file, "_PAUSES_SECONDS", (0.0, 0.0))


def put_all(url: str, folder: Path) -> Url:
    """The files below `folder` as objects of the same names below `url`."""
    for path in folder.rglob("*"):
        if path.is_file():
            put(f"{url}/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return Url(url)


def assert_same_pixels(path: Path, url: Url, seed: int = 0) -> None:
    with reader_for(path).open(path) as local, reader_for(url).open(url) as remote:
        height, width = min(local.header.height, 3000), min(local.header.width, 3000)
        for window in windows(height, width, 4, seed)[1:]:
            a, b = local.read(window), remote.read(window)
            np.testing.assert_array_equal(a.x_HWC, b.x_HWC)
            assert a.x_HWC.dtype == b.x_HWC.dtype
            assert (a.valid_HW is None) == (b.valid_HW is None)
            np.testing.assert_array_equal(a.valid_HW, b.valid_HW)
            assert remote.scratch_bytes(window) >= local.scratch_bytes(window)
        fields = [name for name in local.header.__slots__ if name != "path"]
        assert [getattr(local.header, f) for f in fields] == [getattr(remote.header, f) for f in fields]
        assert remote.header.path == url
        assert remote.header.size_bytes == path.stat().st_size


# Pixels


@pytest.mark.data
@pytest.mark.parametrize(
    "name",
    [
        "s2_20181013_8band_2201x2629",
        "variety/cog_world",
        "variety/cog_nodata_nan",
        "variety/landsat_peru_1985_4band",
        "variety/pix4d_alpha_nodata",
        "variety/cog_gcps_ovr",
    ],
)
def test_a_real_raster_over_s3_has_the_local_pixels(data_dir: Path, s3: str, asked: Asked, name: str) -> None:
    path = data_dir / "raster" / f"{name}.tif"
    url = Url(put(f"{s3}/{name}.tif", path.read_bytes()))
    reader_for(url).header(url)
    assert len(asked) <= 3
    assert_same_pixels(path, url)


TILES = {"tiled": True, "blockxsize": 32, "blockysize": 16}
STRIPS = {"blockysize": 5}


@pytest.mark.parametrize(
    ("codec", "layout"),
    [*product(("none", "deflate", "lzw"), (TILES, STRIPS)), ("jpeg", TILES), ("webp", TILES)],
)
def test_every_layout_over_s3_equals_the_local_read(
    tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch, codec: str, layout: dict[str, Any]
) -> None:
    pictures = codec in ("jpeg", "webp")
    for interleave in ("pixel",) if pictures else ("pixel", "band"):
        x_HWC = picture(90, 130, 3, "uint8" if pictures else "uint16")
        x_HWC[:50] = 0  # blocks that are never written
        path = write_gdal(
            tmp_path / f"{codec}-{len(layout)}-{interleave}.tif", x_HWC, compress=codec,
            interleave=interleave, SPARSE_OK="TRUE", photometric="rgb" if pictures else "minisblack",
            **layout,
        )  # fmt: skip
        url = Url(put(f"{s3}/{path.name}", path.read_bytes()))
        assert_same_pixels(path, url, seed=len(codec))
        with monkeypatch.context() as short:  # many runs, cut anywhere
            short.setattr(round_trips, "_NEAR_BYTES", 100)
            short.setattr(round_trips, "_RUN_BYTES", 700)
            assert_same_pixels(path, url, seed=len(codec) + 1)


@pytest.mark.data
def test_pictures_over_s3_have_the_local_pixels(data_dir: Path, s3: str, asked: Asked) -> None:
    for suffix in ("jpg", "png"):
        path = min(data_dir.rglob(f"*.{suffix}"))
        url = Url(put(f"{s3}/x.{suffix}", path.read_bytes()))
        assert_same_pixels(path, url)
        asked.clear()
        with reader_for(url).open(url) as source:
            source.read(Window(0, 0, 1, 1))
        assert len(asked) <= 3


# Requests


@pytest.mark.data
def test_a_window_of_a_cog_moves_few_bytes_in_few_requests(data_dir: Path, s3: str, asked: Asked) -> None:
    path = data_dir / "raster" / "variety" / "cog_world.tif"
    url = put(f"{s3}/few.tif", path.read_bytes())
    with GeoTiffReader().open(url) as source:
        assert len(asked) <= 2
        assert asked.moved_bytes <= 2 * PAGE_BYTES
        high, wide = source.header.block
        for rows, columns in ((1, 1), (1, 4), (3, 4)):
            asked.clear()
            source.read(window := Window(20 * high, 30 * wide, rows * high, columns * wide))
            assert len(asked) <= rows
            assert asked.moved_bytes < path.stat().st_size / 5
            assert asked.moved_bytes < source.scratch_bytes(window)


def test_a_large_window_is_fetched_once_in_runs_of_some_megabytes(
    tmp_path: Path, s3: str, asked: Asked
) -> None:
    x_HWC = picture(2048, 2048, 3, "uint16")
    path = write_gdal(tmp_path / "large.tif", x_HWC, compress="deflate", tiled=True)
    url = Url(put(f"{s3}/large.tif", path.read_bytes()))
    with GeoTiffReader().open(url) as source:
        asked.clear()
        np.testing.assert_array_equal(source.read(source.header.window).x_HWC, x_HWC)
    most = round_trips._RUN_BYTES
    assert len(asked) <= path.stat().st_size // (most // 2) + 1
    assert asked.moved_bytes <= path.stat().st_size
    assert max(size for _start, size in asked) <= most


def test_a_header_at_the_end_is_one_more_request(tmp_path: Path, s3: str, asked: Asked) -> None:
    path = write_gdal(tmp_path / "x.tif", picture(512, 512, 1, "uint16"), compress="deflate", blockysize=1)
    raw = path.read_bytes()
    ifd = int.from_bytes(raw[4:8], "little")
    moved = len(raw) + len(raw) % 2
    content = raw[:4] + moved.to_bytes(4, "little") + raw[8:] + bytes(moved - len(raw)) + raw[ifd : ifd + 400]
    url = put(f"{s3}/end.tif", content)
    assert GeoTiffReader().header(url).height == 512
    assert len(asked) == 2


PIECES = st.lists(st.tuples(st.integers(0, 9000), st.integers(1, 400)).map(lambda p: (p[0], p[0] + p[1])))


@given(PIECES, st.integers(0, 200), st.integers(1, 2000))
def test_runs_hold_every_piece_and_no_wide_gap(pieces: list[tuple[int, int]], near: int, most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(round_trips, "_NEAR_BYTES", near)
        patch.setattr(round_trips, "_RUN_BYTES", most)
        runs = runs_of(pieces)
    held = np.zeros(10_000, np.int64)
    for start, end in runs:
        held[start:end] += 1
        assert end - start <= max(most, 400 + near)
    assert held.max(initial=0) <= 1
    wanted = np.zeros(10_000, bool)
    for start, end in pieces:
        wanted[start:end] = True
    assert held[wanted].all()
    for (_start, end), (following, _end) in pairwise(sorted(runs)):
        assert following == end or following > end + near
    gaps = np.flatnonzero(np.diff(np.r_[True, wanted | (held == 0), True]))
    assert all(stop - start <= near for start, stop in gaps.reshape(-1, 2))


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> LocalFile:
    path = tmp_path_factory.mktemp("views") / "x.bin"
    path.write_bytes(CONTENT)
    return LocalFile(path)


@given(PIECES, st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 3000)), max_size=9), st.booleans())
def test_a_view_reads_what_the_file_holds(
    content: LocalFile, pieces: list[tuple[int, int]], reads: list[tuple[int, int]], head: bool
) -> None:
    runs, paged = Runs(content, runs_of(pieces)), Paged(content, CONTENT[:PAGE_BYTES] if head else b"")
    for start, size in reads:
        buffer = bytearray(size)
        runs.read_into(start, memoryview(buffer))
        assert buffer == CONTENT[start : start + size]
        for place in (start, start * 29):  # all over the file
            assert read_bytes(paged, place, size) == CONTENT[place : place + size]
    with pytest.raises(UnreadableFile, match="ends before"):
        paged.read_into(len(CONTENT) - 1, memoryview(bytearray(2)))


@pytest.mark.parametrize(
    "options", [{"compress": "lzw"}, {"compress": "deflate", "tiled": True}, {"tiled": True}, {}]
)
def test_a_read_by_ranges_holds_no_more_than_its_scratch_bytes(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    path = write_gdal(tmp_path / "x.tif", picture(600, 900, 4, "uint16"), **options)
    with GeoTiffReader().open(put("memory://scratch/x.tif", path.read_bytes())) as source:
        for window in windows(600, 900, 3, seed=5):
            source.read(window)
            tracemalloc.start()
            pixels = source.read(window)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak - pixels.x_HWC.nbytes <= source.scratch_bytes(window) + 32 * 1024


def test_threads_share_one_opening_of_a_file(tmp_path: Path, s3: str, asked: Asked) -> None:
    x_HWC = picture(256, 256, 1, "uint16")
    path = write_gdal(
        tmp_path / "shared.tif", x_HWC, compress="lzw", tiled=True, blockxsize=64, blockysize=64
    )
    url, files = Url(put(f"{s3}/shared.tif", path.read_bytes())), OpenFiles()
    files.read(url, Window(0, 0, 1, 1))
    asked.clear()
    together = threading.Barrier(4)

    def read(number: int) -> bool:
        together.wait(30)
        row, col = divmod(number, 4)
        window = Window(64 * row, 64 * col, 64, 64)
        return bool((files.read(url, window).x_HWC == x_HWC[window.slices]).all())

    with closing(files), ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(16)))
    assert [start for start, _size in asked if start < 0] == []


@pytest.mark.data
@pytest.mark.parametrize("name", ["s2_20181013_8band_2201x2629", "variety/cog_gcps_ovr", "variety/rgb"])
def test_gdal_sees_where_on_earth_a_raster_elsewhere_is(
    data_dir: Path, s3: str, asked: Asked, name: str
) -> None:
    path = data_dir / "raster" / f"{name}.tif"
    url = Url(put(f"{s3}/a b ñ #1.tif", path.read_bytes()))
    with opened_by_gdal(path) as here, opened_by_gdal(url) as there:
        assert (there.crs, there.transform) == (here.crs, here.transform)
        (points, crs), (wanted, wanted_crs) = there.gcps, here.gcps
        assert ([p.asdict() for p in points], crs) == ([p.asdict() for p in wanted], wanted_crs)
    assert len(asked) <= 3


# Trouble


@pytest.mark.data
def test_a_place_that_cannot_be_fetched_is_an_error_and_no_place_at_all(
    data_dir: Path, web: WebServer
) -> None:
    web.content = (data_dir / "raster" / "s2_20181013_8band_2201x2629.tif").read_bytes()
    web.statuses = [206, *[403] * 9]
    url = web.url.replace("x.bin", "x.tif")
    why = f"{url} cannot be read: permission is denied"
    with pytest.raises(UnreadableFile, match=why), opened_by_gdal(Url(url)):
        pass


def test_no_header_is_asked_for_once_one_is_missing(s3: str, asked: Asked) -> None:
    missing = [(Url(f"{s3}/none/{number}.tif"), None) for number in range(500)]
    assert_refused("no such object", f"{s3}/none/0.tif", lambda: build(missing))
    assert len(asked) < 500


def test_a_raster_that_is_not_there_is_said(s3: str) -> None:
    for url in (f"{s3}/none.tif", f"{s3}/none.png"):
        assert_refused("there is no such object", url, lambda url=url: reader_for(url).header(url))


@pytest.mark.parametrize("name", ["x.tif", "x.png"])
@pytest.mark.parametrize(
    ("status", "why"), [(403, "permission is denied"), (404, "no such object"), (500, "500")]
)
def test_no_message_of_a_raster_tells_a_secret(
    web: WebServer, at_once: None, name: str, status: int, why: str
) -> None:
    shown = f"http://127.0.0.1:{web.server_port}/{name}"
    url = f"http://alice:hunter2@127.0.0.1:{web.server_port}/{name}?X-Amz-Signature=c0ffee"
    web.statuses = [status] * 9
    assert_refused(why, shown, lambda: reader_for(url).open(url))
    web.statuses = []
    kind = "not a TIFF" if name == "x.tif" else "not a PNG"
    assert_refused(kind, shown, lambda: reader_for(url).header(url))
    assert_refused(kind, shown, lambda: build([(path, None) for path in images_in(url)]))


def test_an_answer_that_breaks_off_is_one_sentence(web: WebServer, at_once: None, tmp_path: Path) -> None:
    path = write_gdal(tmp_path / "x.tif", picture(256, 256, 1, "uint16"), compress="lzw", blockysize=16)
    web.content, url = path.read_bytes(), web.url.replace("x.bin", "x.tif")
    with GeoTiffReader().open(url) as source:
        web.manner = "cut"
        assert_refused("the connection failed", url, lambda: source.read(source.header.window))
    assert_refused("the connection failed", url, lambda: GeoTiffReader().open(url))
    web.manner = "flood"
    assert_refused("of 65536 bytes asked for at byte 0 came", url, lambda: GeoTiffReader().open(url))


def test_a_block_that_breaks_is_named_by_its_url(tmp_path: Path, s3: str) -> None:
    path = write_gdal(tmp_path / "x.tif", picture(64, 64, 1, "uint16"), compress="lzw", blockysize=16)
    raw = bytearray(path.read_bytes())
    offsets, counts = (tag_values(path, code) for code in block_tags(path))
    raw[offsets[1] : offsets[1] + counts[1]] = bytes(counts[1])
    url = put(f"{s3}/broken.tif", bytes(raw))
    with GeoTiffReader().open(url) as source:
        assert_refused("is broken", url, lambda: source.read(source.header.window))


def test_a_tiff_that_changes_between_windows_is_refused(tmp_path: Path, s3: str) -> None:
    path = write_gdal(tmp_path / "x.tif", picture(64, 64, 1, "uint16"), compress="lzw", blockysize=16)
    url = put(f"{s3}/changing.tif", path.read_bytes())
    with GeoTiffReader().open(url) as source:
        source.read(source.header.window)
        put(url, path.read_bytes()[:-100])
        assert_refused(CHANGED, url, lambda: source.read(source.header.window))


def test_what_is_no_tiff_or_gdals_alone_is_refused_and_closed(
    tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []
    monkeypatch.setattr(RemoteFile, "close", lambda self: closed.append(self.name))
    lzma = write_gdal(tmp_path / "x.tif", picture(64, 64, 1, "uint16"), compress="lzma").read_bytes()
    lzw = write_gdal(tmp_path / "y.tif", picture(64, 64, 1, "uint16"), compress="lzw").read_bytes()
    for content, why in ((b"II" * 99, "not a TIFF"), (lzma, "read on disk alone"), (lzw[:-1], "truncated")):
        url = put(f"{s3}/odd.tif", content)
        assert_refused(why, url, lambda url=url: GeoTiffReader().open(url))
        assert closed == [url]
        closed.clear()
    with pytest.raises(UnreadableFile) as caught:
        GeoTiffReader().header(put(f"{s3}/odd.tif", lzma))
    assert "Copy it to disk" in caught.value.hint


# Sets


def columns(index: Index) -> list[Any]:
    return [index.height.tolist(), index.width.tolist(), index.block.tolist(), index.layout.tolist(),
            index.bytes.tolist(), index.layouts, index.band_names, index.warnings]  # fmt: skip


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory, s3: str) -> tuple[Path, Url]:
    """Sites of images with masks, on disk and in a bucket; as texts their names have another order."""
    folder = tmp_path_factory.mktemp("sites")
    for number, site in enumerate(("a", "a.b", "a/c")):
        blob_set(folder / site, [(40, 50)] * 2, seed=number, tiled=True, blockxsize=16, blockysize=16)
    (folder / "notes.txt").write_text("no image")
    (folder / "a" / ".hidden.tif").write_text("no image either")
    return folder, put_all(f"{s3}/sites", folder)


def test_a_set_in_a_store_is_the_set_on_disk(scenes: tuple[Path, Url]) -> None:
    folder, url = scenes
    names = [path.relative_to(folder).as_posix() for path in images_in(folder) if isinstance(path, Path)]
    assert len(names) == 12
    assert names == [path.as_posix() for path in sorted(Path(name) for name in names)]
    assert images_in(url) == images_in(f"{url.address}/") == [url / name for name in names]
    assert images_in(url / names[0]) == [url / names[0]]
    here, there = find_pairs([folder], []), find_pairs([url], [])
    assert [image.name[:9] for image, _mask in here] == ["scene 000", "scene 001"] * 3
    of_folder = [[p.relative_to(folder).as_posix() for p in pair if isinstance(p, Path)] for pair in here]
    assert there == [(url / image, url / mask) for image, mask in of_folder]
    assert find_pairs([url / "a/images"], [(url / "a/masks").address]) == there[2:4]
    assert columns(build(here)) == columns(build(there))


def test_the_pixels_of_a_set_in_a_store_are_those_on_disk(scenes: tuple[Path, Url]) -> None:
    here, there = (build(find_pairs([root], [])) for root in scenes)
    with closing(OpenFiles(2)) as files:
        for i, window in product(range(len(here)), windows(40, 50, 2, 5)):
            for of in (Index.image, Index.mask):
                a, b = of(here, i), of(there, i)
                assert isinstance(a, Path)
                assert isinstance(b, Url)
                np.testing.assert_array_equal(files.read(a, window).x_HWC, files.read(b, window).x_HWC)


def test_a_table_in_a_store_names_files_beside_it_or_anywhere(scenes: tuple[Path, Url]) -> None:
    folder, url = scenes
    image, mask = find_pairs([url / "a/images"], [url / "a/masks"])[0]
    assert isinstance(image, Url)
    assert isinstance(mask, Url)
    rows = f"image,mask\nimages/{image.name},../a/masks/{mask.name}\n{image.address},{mask.address}\n"
    put((url / "a/pairs.csv").address, rows.encode())
    assert find_pairs([url / "a/pairs.csv"], []) == [(image, mask)] * 2
    (folder / "pairs.csv").write_text(f"image,mask\n{image.address},a/masks/{mask.name}\n", encoding="utf-8")
    pairs = find_pairs([folder / "pairs.csv"], [])
    assert pairs == [(image, folder / "a" / "masks" / mask.name)]
    assert len(build(pairs)) == 1
    put((url / "none.csv").address, b"image,mask\nnone.tif,none.tif\n")
    with pytest.raises(UnreadableFile, match="no such object"):
        build(find_pairs([url / "none.csv"], []))


def test_what_is_missing_of_a_set_in_a_store_is_said(s3: str, scenes: tuple[Path, Url]) -> None:
    folder, _url = scenes
    image = (folder / "a" / "images" / "scene 000 ñ.tif").read_bytes()
    for name in ("images/1.tif", "images/2.tif", "masks/2_mask.tif"):
        put(f"{s3}/lacking/{name}", image)
    with pytest.raises(BadPair, match=rf"1 of 2 .* in {s3}/lacking/masks.* {s3}/lacking/images/1\.tif"):
        find_pairs([f"{s3}/lacking"], [])
    with pytest.raises(DataError, match="no folder “images”"):
        find_pairs([f"{s3}/lacking/images"], [])
    put(f"{s3}/texts/a.txt", b"x")
    for masks in ([], [f"{s3}/texts"]):
        with pytest.raises(UnreadableFile, match=f"{s3}/texts holds no image"):
            find_pairs([f"{s3}/texts"], masks)
    assert_refused("there is no such object", f"{s3}/gone", lambda: images_in(f"{s3}/gone"))


def test_a_location_opens_as_a_text_a_path_or_an_address(s3: str, tmp_path: Path) -> None:
    path = write_gdal(tmp_path / "x.tif", picture(16, 16, 1, "uint8"))
    url = Url(put(f"{s3}/kinds.tif", path.read_bytes()))
    for location in (path, str(path), path.as_uri(), url, url.address):
        with reader_for(location).open(location) as source:
            assert isinstance(source, TiffSource)
            assert source.header.path in (path, url)
    file, head = open_with_head(path)
    assert file is head
    file.close()
