"""Names of figures and outcomes as people read them."""

from __future__ import annotations

from caudal.core.messages import _


def metric_name(key: str, of_samples: bool = False) -> str:
    """A metric's name in a table; `of_samples`: not of pixels."""
    if of_samples and key == "accuracy":
        return _("Share of samples that are right")
    names = {
        "iou": _("IoU"),
        "dice": _("Dice"),
        "iou_pooled": _("IoU, pooled over all pixels"),
        "dice_pooled": _("Dice, pooled over all pixels"),
        "accuracy": _("Share of pixels that are right"),
        "images": _("Images scored"),
        "auroc": _("AUROC"),
        "f1": _("F1"),
    }
    return names.get(key, key.replace("_", " "))


def is_count(key: str) -> bool:
    """Whether a metric counts things."""
    return key in ("images", "samples") or key.startswith("support")


def outcome_word(outcome: str) -> str:
    """How a run ended, in a word or two."""
    return {
        "succeeded": _("Succeeded"),
        "interrupted": _("Interrupted"),
        "failed": _("Failed"),
        "running": _("Still running"),
        "stopped": _("Stopped without a word"),
    }[outcome]
