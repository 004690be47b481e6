"""Tiles: of rasters with and without a place on Earth, within limits, of files in reach alone."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin

from caudal.service.serving import Limits
from tests.data.sets import write_tiff
from tests.service.front.conftest import QUIET, Front


@pytest.fixture
def rasters(root: Path) -> Path:
    x_HWC = np.zeros((512, 512, 4), np.uint16)
    x_HWC[:, 256:] = 1000
    write_tiff(root / "roofs" / "map.tif", x_HWC, tiled=True, blockxsize=256, blockysize=256)
    Image.fromarray(np.full((300, 500, 3), 200, np.uint8)).save(root / "roofs" / "photo.png")
    return root


def opened(front: Front, file: str) -> dict[str, Any]:
    dataset = front.dataset(f"set of {file}", root="scenes", path="roofs")
    answer = front.post("/rasters", {"dataset": dataset["id"], "file": file})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def middle(raster: dict[str, Any]) -> tuple[int, int, int]:
    """The tile in the middle, at the closest zoom."""
    west, south, east, north = raster["bounds"]
    z = raster["maxzoom"]
    x = (west + east) / 2 / 360 + 0.5
    y = 0.5 - math.asinh(math.tan(math.radians((south + north) / 2))) / math.pi / 2
    return z, int(x * 2**z), int(y * 2**z)


def pixels(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGBA"))


def test_a_raster_says_where_it_is_and_its_tile_shows_its_values(front: Front, rasters: Path) -> None:
    raster = opened(front, "map.tif")
    assert (raster["height"], raster["width"], raster["bands"], raster["crs"]) == (512, 512, 4, "EPSG:32630")
    assert raster["stretch"][0] == [0.0, 1000.0]
    z, x, y = middle(raster)
    tile = front.get(f"/rasters/{raster['id']}/tiles/{z}/{x}/{y}?bidx=1&rescale=0,1000")
    assert (tile.status_code, tile.headers["content-type"]) == (200, "image/png")
    shown = pixels(tile.content)
    assert shown.shape == (256, 256, 4)
    seen = set(np.unique(shown[..., 0][shown[..., 3] > 0]).tolist())
    assert seen <= {0, 255}
    assert seen
    coloured = front.get(
        f"/rasters/{raster['id']}/tiles/{z}/{x}/{y}?bidx=1&rescale=0,1000&colormap_name=viridis"
    )
    colours = {tuple(c) for c in pixels(coloured.content)[shown[..., 3] > 0][:, :3].reshape(-1, 3).tolist()}
    assert colours <= {(68, 1, 84), (253, 231, 36), (253, 231, 37)}
    assert front.get(f"/rasters/{raster['id']}").json() == raster


@pytest.mark.parametrize("bands", ["bidx=1", "bidx=1&bidx=2&bidx=3"])
def test_a_tile_that_is_larger_than_the_raster_shows_it_small_and_in_its_place(
    front: Front, rasters: Path, bands: str
) -> None:
    raster = opened(front, "map.tif")
    z, x, y = middle(raster)
    away = z - raster["minzoom"] + 1
    near, far = (
        front.get(f"/rasters/{raster['id']}/tiles/{z - k}/{x >> k}/{y >> k}?{bands}&rescale=0,1000")
        for k in (away - 1, away)
    )
    assert (near.status_code, far.status_code) == (200, 200)
    shown = pixels(far.content)
    seen = shown[:, :, 3] > 0
    assert 0.8 < 4 * seen.sum() / (pixels(near.content)[:, :, 3] > 0).sum() < 1.25
    assert 0.4 < (shown[seen][:, 0] == 255).mean() < 0.6  # its right half
    world = front.get(f"/rasters/{raster['id']}/tiles/0/0/0?{bands}")
    assert world.status_code == 200


def test_a_picture_without_a_place_has_tiles_of_its_own(front: Front, rasters: Path) -> None:
    raster = opened(front, "photo.png")
    assert (raster["crs"], raster["minzoom"]) == (None, 0)
    tile = front.get(f"/rasters/{raster['id']}/tiles/{raster['maxzoom']}/0/0")
    assert (pixels(tile.content)[..., :3] == 200).all()


def test_what_is_not_there_is_404_and_what_is_wrong_422(front: Front, rasters: Path) -> None:
    raster = opened(front, "map.tif")
    z, x, y = middle(raster)
    at = f"/rasters/{raster['id']}/tiles"
    assert front.get(f"{at}/{z}/0/0").status_code == 404
    assert front.get(f"{at}/{z}/{x}/{y}?bidx=9").status_code == 404
    for query in (
        "rescale=1",
        "rescale=nan,1",
        "rescale=5,1",
        "colormap_name=nonsense",
        "colormap_name=../x",
        "bidx=x",
    ):
        assert front.get(f"{at}/{z}/{x}/{y}?{query}").status_code == 422, query
    assert front.get(f"{at}/31/0/0").status_code == 422
    assert front.get("/rasters/AAAAAAAAAA").status_code == 404


def test_an_id_that_somebody_made_up_opens_nothing_out_of_reach(front: Front, rasters: Path) -> None:
    dataset = front.dataset("all", root="scenes")["id"]
    for made in (
        ["d", dataset, "../secret.csv"],
        ["d", dataset, "roofs/link.csv"],
        ["d", "../..", "x"],
        ["r", dataset, "x"],
        ["x", dataset, "x"],
        [1, 2, 3],
        {"a": 1},
        [[[]]],
        ["d", dataset, ""],
    ):
        raster_id = base64.urlsafe_b64encode(json.dumps(made).encode()).rstrip(b"=").decode()
        assert front.get(f"/rasters/{raster_id}").status_code == 404, made


def test_a_raster_that_would_cost_too_much_is_refused_not_drawn(
    make_front: Callable[..., Front], rasters: Path
) -> None:
    limits = Limits.model_validate({**QUIET.model_dump(), "tile_px": 10_000})
    front = make_front(limits=limits)
    raster = opened(front, "map.tif")
    z, x, y = middle(raster)
    answer = front.get(f"/rasters/{raster['id']}/tiles/{z - 3}/{x >> 3}/{y >> 3}?bidx=1&rescale=0,1")
    assert (answer.status_code, answer.json()["code"]) == (422, "too_costly")


def test_a_file_that_is_no_raster_or_points_elsewhere_is_refused(front: Front, root: Path) -> None:
    (root / "roofs" / "evil.tif").write_text('<VRTDataset rasterXSize="1" rasterYSize="1"/>')
    with rasterio.open(
        root / "roofs" / "huge.tif",
        "w",
        driver="GTiff",
        height=200_000,
        width=200_000,
        count=1,
        dtype="uint8",
        sparse_ok=True,
        tiled=True,
        bigtiff="yes",
        crs="EPSG:4326",
        transform=from_origin(0, 0, 1e-5, 1e-5),
    ):
        pass
    dataset = front.dataset("roofs", root="scenes", path="roofs")
    codes = [
        front.post("/rasters", {"dataset": dataset["id"], "file": file}).status_code
        for file in ("evil.tif", "huge.tif", "a.csv", "no.tif", "link.csv")
    ]
    assert codes == [415, 413, 415, 404, 404]
