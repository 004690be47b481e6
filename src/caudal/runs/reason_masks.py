"""Masks that say where the reason of a prediction should lie, found by the names of their pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from caudal.core.geometry import Window
from caudal.core.messages import _
from caudal.data.index import check_size
from caudal.data.locations import located
from caudal.data.pairs import images_in
from caudal.data.readers import reader_for
from caudal.runs.seen import Seen

_TAILS = ("", "_mask", "_segmentation")


class ReasonMasks:
    """The masks of a folder, or none; what was missing or empty is gathered while they are asked for."""

    def __init__(self, folder: str | Path | None) -> None:
        found = [] if folder is None else images_in(located(str(folder)))
        self._folder = folder
        self._by_stem = {path.stem: path for path in found}
        self._missing: list[str] = []
        self._empty: list[str] = []

    def of(self, one: Seen) -> npt.NDArray[np.bool_] | None:
        """The mask of a picture by its name, with or without a tail, at the size that the model sees.

        `None` where there is none, or where it marks nothing of what is seen.

        Raises:
            BadPair: it has another size than a picture that is seen as it is.
            UnreadableFile: it cannot be read.
        """
        import cv2

        if self._folder is None:
            return None
        names = (f"{one.name}{tail}" for tail in _TAILS)
        path = next((self._by_stem[name] for name in names if name in self._by_stem), None)
        if path is None:
            self._missing.append(one.name)
            return None
        header = reader_for(path).header(path)
        if one.header is not None:
            check_size(one.header, header)
        window = one.window or Window(0, 0, header.height, header.width)
        with reader_for(path).open(path) as source:
            mask_HW = np.any(source.read(window).x_HWC > 0, axis=2)
        high, wide = one.x_CHW.shape[1:]
        if mask_HW.shape != (high, wide):
            small_HW = cv2.resize(
                mask_HW.astype(np.uint8), (int(wide), int(high)), interpolation=cv2.INTER_NEAREST
            )
            mask_HW = np.asarray(small_HW > 0)
        if not mask_HW.any():
            self._empty.append(one.name)
            return None
        return np.asarray(mask_HW)

    def warnings(self) -> list[str]:
        """Which pictures had no mask that says anything."""
        said = []
        if self._missing:
            said.append(
                _("{count} pictures have no mask in {folder} (first: {name}).").format(
                    count=len(self._missing), folder=self._folder, name=self._missing[0]
                )
            )
        if self._empty:
            said.append(
                _("The masks of {count} pictures mark nothing of what is seen there (first: {name}).").format(
                    count=len(self._empty), name=self._empty[0]
                )
            )
        return said
