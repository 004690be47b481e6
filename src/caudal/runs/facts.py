"""What headers say of the data of a run: the part of a plan that tells its user what will be learned from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from caudal.core.config import Frozen
from caudal.core.messages import _
from caudal.core.units import Bytes

Row = tuple[str, str]
"""A name, and words."""


class SceneFacts(Frozen):
    """Rasters and pictures that patches of `patch_px` are cut from. Sizes are (height, width) in pixels."""

    kind: Literal["scenes"] = "scenes"
    images: int
    held_out: int
    bands: int
    dtype: str
    band_names: tuple[str, ...]
    smallest_px: tuple[int, int]
    largest_px: tuple[int, int]
    decoded: Bytes
    on_disk: Bytes
    samples_per_epoch: int
    block_px: tuple[int, int]
    patch_px: int

    @property
    def shape(self) -> str:
        """What samples have to have in common for runs to take alike."""
        return f"{self.bands} bands {self.patch_px} px"

    @property
    def samples(self) -> str:
        """What a batch is made of."""
        return _("patches of {patch} px").format(patch=self.patch_px)

    def line(self) -> str:
        """All of it in one line."""
        return _(
            "{images} images, {held_out} of them held out; {bands} bands {dtype}; {decoded} decoded"
        ).format(
            images=self.images,
            held_out=self.held_out,
            bands=self.bands,
            dtype=self.dtype,
            decoded=self.decoded,
        )

    def rows(self) -> list[Row]:
        """As rows of a table."""
        small, large = ("×".join(map(str, size)) for size in (self.smallest_px, self.largest_px))
        size = (
            f"{small} px" if small == large else _("{small} to {large} px").format(small=small, large=large)
        )
        names = f" ({', '.join(self.band_names)})" if any(self.band_names) else ""
        return [
            (
                _("Images"),
                _("{images}, of which {held_out} held out; {size}").format(
                    images=f"{self.images:,}", held_out=f"{self.held_out:,}", size=size
                ),
            ),
            (_("Bands"), f"{self.bands} × {self.dtype}{names}"),
        ]


class SetFacts(Frozen):
    """Samples as they lie in files. `shape` is that of a sample as the model takes it."""

    kind: Literal["set"] = "set"
    count: int
    held_out: int
    files: int
    fields: tuple[str, ...]
    shape: str
    target: str
    decoded: Bytes
    on_disk: Bytes
    samples_per_epoch: int

    @property
    def samples(self) -> str:
        """What a batch is made of."""
        return _("samples ({shape})").format(shape=self.shape)

    def line(self) -> str:
        """All of it in one line."""
        return _("{count} samples, {held_out} of them held out; {shape}; {decoded} decoded").format(
            count=self.count, held_out=self.held_out, shape=self.shape, decoded=self.decoded
        )

    def rows(self) -> list[Row]:
        """As rows of a table."""
        return [
            (
                _("Samples"),
                _("{count} in {files} files, of which {held_out} held out").format(
                    count=f"{self.count:,}", files=f"{self.files:,}", held_out=f"{self.held_out:,}"
                ),
            ),
            (_("Fields"), "; ".join(self.fields)),
            (_("Target"), self.target),
        ]


Facts = Annotated[SceneFacts | SetFacts, Field(discriminator="kind")]
