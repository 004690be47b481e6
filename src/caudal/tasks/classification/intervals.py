"""The figures of a classification whose intervals are told, over resamples of its samples.

All are functions of how often each resample has each sample, so that no resample is drawn out. Legend: N
samples, R resamples, K classes, J bins, F figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from caudal.tasks.metrics import calibration
from caudal.tasks.metrics.figures import Floats, ratio
from caudal.tasks.metrics.ranking import Ranking, Tally


class Figures:
    """Called with weights (R, N), it gives the figures `names` of each resample (R, F); NaN: undefined.

    `ranked` are figures of a ranking by name: of more than two classes, means over `orders`, each class
    against all others. `predicted_N` are the classes that were decided for.
    """

    def __init__(
        self,
        ranked: Mapping[str, Callable[[Tally], Floats]],
        orders: Sequence[Ranking],
        probabilities_NK: npt.NDArray[np.float32],
        truth_N: npt.NDArray[np.int64],
        predicted_N: npt.NDArray[np.int64],
    ) -> None:
        self._ranked, self._orders = ranked, orders
        classes = probabilities_NK.shape[1]
        of_two = ("specificity", "sensitivity") if classes == 2 else ()
        self.names = (*ranked, "accuracy", "balanced_accuracy", *of_two, "brier", "ece")
        self._two = bool(of_two)
        self._class_NK = np.eye(classes)[truth_N]
        self._right_N = (truth_N == predicted_N).astype(np.float64)
        self._squares_N = calibration.squares(probabilities_NK, truth_N)
        confidence_N, happened_N = calibration.confidence(probabilities_NK, truth_N)
        bin_NJ = np.eye(calibration.BINS)[calibration.bins_of(confidence_N, calibration.BINS)]
        self._gap_NJ = bin_NJ * (confidence_N - happened_N)[:, None]

    def __call__(self, weights_RN: Floats) -> Floats:
        """The figures, in the order of `names`."""
        tallies = [order.tally(weights_RN) for order in self._orders]
        found = [mean_of_defined([of(tally) for tally in tallies]) for of in self._ranked.values()]
        total_R = weights_RN.sum(-1)
        recall_RK = ratio((weights_RN * self._right_N) @ self._class_NK, weights_RN @ self._class_NK)
        present_R = (~np.isnan(recall_RK)).sum(-1)
        balanced_R = np.where(present_R > 1, mean_of_defined(list(recall_RK.T)), np.nan)
        found += [ratio(weights_RN @ self._right_N, total_R), balanced_R]
        if self._two:
            found += [recall_RK[:, 0], recall_RK[:, 1]]
        # What a bin was said to be less what it was, times its samples: the samples cancel.
        found += [
            ratio(weights_RN @ self._squares_N, total_R),
            ratio(np.abs(weights_RN @ self._gap_NJ).sum(-1), total_R),
        ]
        return np.stack(found, -1)


def mean_of_defined(values: Sequence[Floats | float]) -> Floats:
    """Mean over the classes for which the figure is defined (first axis); NaN where it is for none."""
    stacked = np.stack([np.asarray(value, np.float64) for value in values])
    known = ~np.isnan(stacked)
    return ratio(np.where(known, stacked, 0).sum(0), known.sum(0))
