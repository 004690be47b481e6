"""How much of a map lies inside a lesion's mask: the energy-based pointing game and the pointing game.

Share of energy: Wang et al., “Score-CAM”, CVPR workshops 2020. Pointing game: Zhang et al., ECCV 2016.
"""

from __future__ import annotations

import numpy as np

from caudal.inference.explain.explanation import Energy, Map
from caudal.inference.explain.target import Mask, check_mask


def energy(map_HW: Map, mask_HW: Mask) -> Energy:
    """The share of the map's positive values inside `mask_HW`, and whether its highest value is there.

    Raises:
        UsageError: the mask has another size, or no pixel.
    """
    check_mask(mask_HW, *map_HW.shape)
    positive_HW = np.maximum(map_HW, 0).astype(np.float64)
    total, area = float(positive_HW.sum()), float(mask_HW.mean())
    if not total:
        return Energy(None, area, None)
    inside = float(positive_HW[mask_HW].sum()) / total
    return Energy(inside, area, bool(mask_HW.ravel()[positive_HW.argmax()]))
