"""What a data set holds, from headers alone: packed columns, no pixel read.

Columns are numpy arrays and names lie in one block of bytes: a list of Python objects costs ten times
as much and is copied into every process that looks at it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from caudal.core.errors import BadPair, BadValues
from caudal.core.messages import _
from caudal.data.bands import Layout, layout_of
from caudal.data.locations import relocated
from caudal.data.pairs import Pair
from caudal.data.readers import reader_for
from caudal.data.readers.base import Header
from caudal.data.url import Location, Url, address_of

_REQUESTS = 16  # at once: a header elsewhere is a round trip, and little work
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Names:
    """Strings as one block of UTF-8 bytes and the offsets of their ends."""

    blob: npt.NDArray[np.uint8]
    ends: Ints

    @classmethod
    def pack(cls, texts: Iterable[str]) -> Names:
        """Pack strings."""
        parts = [text.encode("utf-8", "surrogateescape") for text in texts]
        ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
        return cls(np.frombuffer(b"".join(parts), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, i: int) -> str:
        start = self.ends[i - 1] if i else 0
        return bytes(self.blob[start : self.ends[i]]).decode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class Index:
    """The images of a set, in the order of their names.

    `images` and `masks` are addresses, with their secrets: print `image(i)`. Arrays have one entry an image:
    `height`, `width` and `block` (height, width) in pixels, `layout` a number into `layouts`, `bytes` the
    size of the file. `warnings` are what the user should know.
    """

    images: Names
    masks: Names
    height: Ints
    width: Ints
    block: Ints
    layout: Ints
    bytes: Ints
    layouts: tuple[Layout, ...]
    band_names: tuple[str, ...]
    warnings: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def bands(self) -> int:
        """Bands of the model's input."""
        return len(self.layouts[0].order)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype in which samples wait: the files' own if they agree on a small one, else float32."""
        kinds = {layout.dtype.newbyteorder("=") for layout in self.layouts}
        only = kinds.pop()
        return only if not kinds and only.itemsize <= 4 and only.kind in "uif" else np.dtype(np.float32)

    def image(self, i: int) -> Location:
        """Where image i lies."""
        return relocated(self.images[i])

    def mask(self, i: int) -> Location | None:
        """Where the mask of image i lies, if there is one."""
        text = self.masks[i]
        return relocated(text) if text else None

    @property
    def pixels(self) -> int:
        """Pixels of all images."""
        return int((self.height * self.width).sum())

    @property
    def decoded_bytes(self) -> int:
        """Bytes of all images once decoded."""
        sizes = np.array([layout.dtype.itemsize * len(layout.order) for layout in self.layouts])
        return int((self.height * self.width * sizes[self.layout]).sum())


def build(pairs: Sequence[Pair], tick: Callable[[int, int], None] = lambda _done, _total: None) -> Index:
    """Read the headers of every pair and check that they belong together.

    Raises:
        UnreadableFile: a file cannot be read.
        BadPair: a mask has another size than its image, or more than one band.
        DataError: band counts differ.
    """
    headers: list[Header] = []
    layouts: list[Layout] = []
    number: list[int] = []
    by_position: list[Location] = []
    for done, (header, mask) in enumerate(_headers(pairs)):
        first = headers[0] if headers else header
        layout, blind = layout_of(header, first.band_names, first.bands)
        if blind:
            by_position.append(header.path)
        if layout not in layouts:
            layouts.append(layout)
        number.append(layouts.index(layout))
        headers.append(header)
        if mask is not None:
            _check_pair(header, mask)
        tick(done + 1, len(pairs))
    if not headers:
        raise BadValues(_("There is no image to learn from."), _("Check the data folder."))
    return _pack(pairs, headers, number, layouts, by_position, odd_warnings(headers))


def _headers(pairs: Sequence[Pair]) -> Iterator[tuple[Header, Header | None]]:
    """The headers of each pair, in order; those elsewhere are asked for many at a time."""

    def read(pair: Pair) -> tuple[Header, Header | None]:
        image, mask = pair
        return reader_for(image).header(image), None if mask is None else reader_for(mask).header(mask)

    if not any(isinstance(one, Url) for pair in pairs for one in pair):
        yield from map(read, pairs)
        return
    with ThreadPoolExecutor(_REQUESTS) as pool:
        try:
            yield from pool.map(read, pairs)
        finally:
            pool.shutdown(cancel_futures=True)


def odd_warnings(headers: Iterable[Header]) -> list[str]:
    """What must be said of images whose pixels may not be what their owner thinks."""
    found: dict[str, list[Location]] = {"palette": [], "animated": []}
    for header in headers:
        if header.oddity:
            found[header.oddity].append(header.path)
    said = []
    if paths := found["palette"]:
        said.append(
            _(
                "{count} images have a palette: what is read are the numbers of its colours (first: {path}). "
                "Write them as grey or RGB if colours count."
            ).format(count=len(paths), path=paths[0])
        )
    if paths := found["animated"]:
        said.append(
            _("{count} images are animated: of each the first frame is read (first: {path}).").format(
                count=len(paths), path=paths[0]
            )
        )
    return said


def check_size(image: Header, mask: Header) -> None:
    """Make sure that a mask lies on its image's own grid.

    Raises:
        BadPair: it has another size.
    """
    if (image.height, image.width) != (mask.height, mask.width):
        raise BadPair(
            _("The mask {mask} is {mh}×{mw} pixels and its image {image} is {h}×{w}.").format(
                mask=mask.path, mh=mask.height, mw=mask.width, image=image.path, h=image.height, w=image.width
            ),
            _("Write the mask on the image's own grid, or move the pair away."),
            path=str(mask.path),
        )


def _check_pair(image: Header, mask: Header) -> None:
    check_size(image, mask)
    if mask.bands != 1:
        raise BadPair(
            _("The mask {mask} has {bands} bands, and a mask has one.").format(
                mask=mask.path, bands=mask.bands
            ),
            _("Write class numbers into one band."),
            path=str(mask.path),
        )


def _pack(
    pairs: Sequence[Pair],
    headers: list[Header],
    number: list[int],
    layouts: list[Layout],
    by_position: list[Location],
    warnings: list[str],
) -> Index:
    if len(layouts) > 1:
        kinds = "; ".join(
            f"{', '.join(lay.band_names) or _('unnamed')} ({lay.dtype}, "
            + _("{count} files").format(count=number.count(k))
            + ")"
            for k, lay in enumerate(layouts)
        )
        warnings.append(
            _("The files have {n} band layouts, each normalized on its own: {kinds}.").format(
                n=len(layouts), kinds=kinds
            )
        )
    if by_position:
        warnings.append(
            _(
                "{count} files name their bands otherwise; bands are taken by position (first: {path})."
            ).format(count=len(by_position), path=by_position[0])
        )
    return Index(
        images=Names.pack(address_of(image) for image, _mask in pairs),
        masks=Names.pack(address_of(mask) if mask else "" for _image, mask in pairs),
        height=np.array([h.height for h in headers], np.int64),
        width=np.array([h.width for h in headers], np.int64),
        block=np.array([h.block for h in headers], np.int64),
        layout=np.array(number, np.int64),
        bytes=np.array([h.size_bytes for h in headers], np.int64),
        layouts=tuple(layouts),
        band_names=headers[0].band_names,
        warnings=tuple(warnings),
    )
