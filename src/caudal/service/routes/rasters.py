"""Rasters and heat maps on a map: what they are, and their tiles, with the arguments that TiTiler has."""

from __future__ import annotations

import base64
import binascii
import json
import os
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Response
from fastapi import Path as PathPart
from pydantic import BaseModel, model_validator

from caudal.core.messages import _
from caudal.service import beneath
from caudal.service.asks import Ask, FileName, Id
from caudal.service.auth import Reads
from caudal.service.context import Context, Here
from caudal.service.ids import is_id
from caudal.service.problems import Refused, documented, not_found
from caudal.service.routes.runs import run_folder

router = APIRouter(prefix="/rasters", tags=["rasters"])
RasterId = Annotated[str, PathPart(min_length=8, max_length=2000, pattern="^[A-Za-z0-9_-]+$")]
_LOOK_SECONDS = 30.0
_MOST_RANGES = 3


class NewRaster(Ask):
    """A file of a data set or of a run."""

    dataset: Id | None = None
    run: Id | None = None
    file: FileName

    @model_validator(mode="after")
    def _one_of_two(self) -> NewRaster:
        if (self.dataset is None) == (self.run is None):
            raise ValueError("give a dataset or a run")
        return self


class RasterView(BaseModel):
    """A raster: its size, bands, place, zoom levels; `stretch` has the 2nd and 98th percentile of each band.

    `bounds` are west, south, east, north in degrees; without a place on Earth (`crs` is `null`) in pixels.
    """

    id: str
    file: str
    height: int
    width: int
    bands: int
    band_names: list[str]
    dtype: str
    nodata: float | None
    crs: str | None
    bounds: list[float]
    minzoom: int
    maxzoom: int
    stretch: list[tuple[float, float]]
    tiles: str


@router.post("", status_code=201, responses=documented(404, 413, 415), operation_id="open_raster")
async def open_raster(response: Response, here: Here, caller: Reads, body: NewRaster) -> RasterView:
    """The id of a raster, for its tiles. The same file has the same id."""
    kind, owner = ("d", body.dataset) if body.dataset else ("r", body.run)
    raster_id = _encoded(kind, str(owner), body.file)
    view = await run_sync(_about, here, raster_id, limiter=here.heavy)
    response.headers["Location"] = f"/api/v1/rasters/{raster_id}"
    return view


@router.get("/{raster_id}", responses=documented(304, 404, 413, 415), operation_id="get_raster")
async def get_raster(here: Here, caller: Reads, raster_id: RasterId) -> RasterView:
    """What a raster says of itself."""
    return await run_sync(_about, here, raster_id, limiter=here.heavy)


@router.get(
    "/{raster_id}/tiles/{z}/{x}/{y}",
    response_class=Response,
    responses={
        **documented(304, 404, 413, 415),
        200: {
            "description": "A PNG of 256 × 256 pixels, clear where there is no data",
            "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
        },
    },
    operation_id="get_tile",
)
async def get_tile(
    here: Here,
    caller: Reads,
    raster_id: RasterId,
    z: Annotated[int, PathPart(ge=0, le=30)],
    x: Annotated[int, PathPart(ge=0, le=2**30)],
    y: Annotated[int, PathPart(ge=0, le=2**30)],
    bidx: Annotated[list[int] | None, Query(max_length=3, description="Bands, from 1: one, or three")] = None,
    rescale: Annotated[
        list[str] | None, Query(max_length=_MOST_RANGES, description="min,max for all bands, or for each")
    ] = None,
    colormap_name: Annotated[str | None, Query(pattern="^[a-z0-9_]{1,40}$")] = None,
) -> Response:
    """A tile in Web Mercator. Without a place on Earth: of the picture, from its upper left corner."""
    given = {
        "z": z,
        "x": x,
        "y": y,
        "bidx": bidx or [],
        "colormap_name": colormap_name,
        "rescale": _ranges(rescale or []),
    }
    body = await run_sync(_draw, here, raster_id, given, limiter=here.heavy)
    return Response(body, media_type="image/png", headers={"Cache-Control": "private, max-age=60"})


def _ranges(texts: list[str]) -> list[tuple[float, float]]:
    """`["0,1", "0,255"]` as numbers.

    Raises:
        Refused: 422.
    """
    found = []
    for text in texts:
        try:
            low, high = (float(number) for number in text.split(","))
        except ValueError:
            low = high = float("nan")
        if not (-1e30 < low <= high < 1e30):
            raise Refused(
                422,
                "wrong_request",
                _("“rescale” is wrong."),
                _("Write it as rescale=0,255, once or for each band."),
            )
        found.append((low, high))
    return found


def _draw(here: Context, raster_id: str, given: dict[str, Any]) -> bytes:
    with _Opened(here, raster_id) as path:
        return here.sandbox.ask("tile", path=path, **given)[1]


def _about(here: Context, raster_id: str) -> RasterView:
    with _Opened(here, raster_id) as path:
        about: dict[str, Any] = here.sandbox.ask("about", _LOOK_SECONDS, path=path)[0]
    tiles = f"/api/v1/rasters/{raster_id}/tiles/{{z}}/{{x}}/{{y}}"
    return RasterView(id=raster_id, file=_decoded(raster_id)[2], tiles=tiles, **about)


def _encoded(kind: str, owner: str, file: str) -> str:
    text = json.dumps([kind, owner, file], ensure_ascii=False, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def _decoded(raster_id: str) -> tuple[str, str, str]:
    """What `_encoded` was given. Whoever makes one up gets no further than with what it is made of."""
    try:
        raw = base64.b64decode(raster_id + "=" * (-len(raster_id) % 4), b"-_", validate=True)
        kind, owner, file = json.loads(raw)
    except (binascii.Error, ValueError, TypeError, RecursionError):
        raise not_found(_("There is no such raster.")) from None
    if kind not in ("d", "r") or not isinstance(owner, str) or not is_id(owner) or not isinstance(file, str):
        raise not_found(_("There is no such raster."))
    return kind, owner, file


class _Opened:
    """A raster's file, open: what the child of the sandbox opens is this file, whatever its name becomes."""

    def __init__(self, here: Context, raster_id: str) -> None:
        kind, owner, file = _decoded(raster_id)
        if kind == "d":
            self._handle = here.roots.open(here.store.datasets.get(owner), file)
        else:
            self._handle = beneath.file_below(run_folder(here, here.store.runs.get(owner)), file)

    def __enter__(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self._handle}"

    def __exit__(self, *_ended: object) -> None:
        os.close(self._handle)
