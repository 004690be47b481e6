"""Which anomaly model suits the data at hand, where a spec leaves it open (`auto`): from headers alone."""

from __future__ import annotations

from caudal.core.errors import UsageError
from caudal.core.messages import _
from caudal.runs.spec import RunSpec

AUTO = "auto"
_FEW_BANDS = 4
_LEAST_PX = 2**18  # to train a network on


def chosen_model(spec: RunSpec, bands: int, pixels: int) -> tuple[RunSpec, tuple[str, ...]]:
    """The spec with a model's name for `auto`, and in words why it is that one; others come back as they are.

    `bands` of every image, and `pixels` to train on. Up to four bands are looked at for what surrounds a
    pixel; of more a network learns which go together, or where it has too little to learn from, statistics
    say it.

    Raises:
        UsageError: keys of a model that is not known yet.
    """
    if spec.model.name != AUTO:
        return spec, ()
    if spec.model.config:
        raise UsageError(
            _("The model “auto” has no keys of its own."),
            _("Name the model that model.config is for: patch_memory, autoencoder or rx."),
        )
    if bands <= _FEW_BANDS:
        name = "patch_memory"
        note = _("The model is patch_memory: with {bands} bands, what surrounds a pixel tells most.")
    elif pixels >= _LEAST_PX:
        name = "autoencoder"
        note = _("The model is autoencoder: with {bands} bands, it learns which values go together.")
    else:
        name = "rx"
        note = _("The model is rx: with {bands} bands and {pixels} pixels, there is too little to train on.")
    chosen = spec.model_copy(update={"model": spec.model.model_copy(update={"name": name})})
    return chosen, (note.format(bands=bands, pixels=f"{pixels:,}"),)
