"""What the HTTP side of the service is told: where it listens, what it may read, how much it takes.

What jobs may hold, and where they are stored, stands in `settings.py`.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from caudal.core.config import Frozen
from caudal.core.units import Bytes

PREFIX = "/api/v1"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class Limits(Frozen):
    """The most of everything. A picture is decoded whole, a raster in blocks, so that each has its own.

    `requests_per_second` counts for each key, in bursts of `burst`; `refusals_per_minute` for each address
    that gives no key or a wrong one. `codecs` are TIFF compressions by name, as `caudal` names them.
    """

    body: Bytes = Bytes(2**20)
    upload: Bytes = Bytes(4 * 2**30)
    dataset: Bytes = Bytes(64 * 2**30)
    archive_files: int = Field(100_000, ge=1)
    archive_ratio: int = Field(200, ge=1)
    picture_px: int = Field(200_000_000, ge=1)
    raster_px: int = Field(8_000_000_000, ge=1)
    bands: int = Field(512, ge=1)
    block: Bytes = Bytes(256 * 2**20)
    codecs: tuple[str, ...] = ("none", "lzw", "deflate", "zstd", "packbits", "jpeg", "webp", "png")
    requests_per_second: float = Field(500.0, gt=0)
    burst: int = Field(1000, ge=1)
    refusals_per_minute: float = Field(60.0, gt=0)
    streams: int = Field(500, ge=1)
    stream_seconds: float = Field(3600.0, gt=0)
    plans: int = Field(1, ge=1)
    plan_seconds: float = Field(120.0, gt=0)
    fetch_seconds: float = Field(3600.0, gt=0)
    tile_seconds: float = Field(10.0, gt=0)
    tile_px: int = Field(64_000_000, ge=1)
    child_bytes: Bytes = Bytes(2 * 2**30)


class Place(Frozen):
    r"""One folder under its three names: of Windows (`C:\scenes`), WSL (`/mnt/c/scenes`), the server."""

    windows: str = ""
    wsl: str = ""
    server: str


class Oidc(Frozen):
    """Whose tokens are taken beside the service's own. `scope_claim` holds words like `caudal:read`."""

    issuer: str
    audience: str
    scope_claim: str = "scope"


class Serving(Frozen):
    """Where the service listens, what of the disk it may read, and whom it believes.

    `roots` are the folders that data sets may be in, by name. `names` are further names of this server that
    a request may call it by. `remote_hosts` may be fetched from: none, unless they are named here.
    """

    host: str = "127.0.0.1"
    port: int = Field(8741, ge=0, le=65535)
    names: tuple[str, ...] = ()
    roots: dict[str, Path] = Field(default_factory=dict)
    places: tuple[Place, ...] = ()
    limits: Limits = Limits()
    oidc: Oidc | None = None
    remote_hosts: tuple[str, ...] = ()
