"""What a picture says of itself, and the error for one that cannot be read: records, no more."""

from __future__ import annotations

from dataclasses import dataclass

Size = tuple[int, int]  # height, width in pixels


class BrokenPicture(Exception):
    """A picture that cannot be read: `why` is a clause without a full stop, `hint` the mend or empty."""

    def __init__(self, why: str, hint: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.hint = hint


@dataclass(frozen=True, slots=True)
class PictureHeader:
    """What a picture says of itself.

    `stored_px` is its height and width before it is turned upright as `orientation` (EXIF, 1 to 8) says;
    `samples` a pixel are what its decoder gives, alpha included. A JPEG of several scans is held as
    `coefficient_bytes` until the last came. `scan_end` is where its first scan header ends; 0 unless that has
    to end in a sequential scan's numbers.
    """

    codec: str
    stored_px: Size
    orientation: int = 1
    samples: int = 3
    has_alpha: bool = False
    animated: bool = False
    coefficient_bytes: int = 0
    scan_end: int = 0

    @property
    def upright_px(self) -> Size:
        """Height and width of what is read."""
        return self.turned(self.stored_px)

    def turned(self, size_px: Size) -> Size:
        """A stored size as it is upright, or an upright one as it is stored: the swap is its own inverse."""
        return size_px[::-1] if self.orientation >= 5 else size_px
