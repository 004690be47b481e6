"""Explanations as a page: what is shown, in which words and figures; how it looks is in its template.

The page needs nothing else: styles, pictures, maps and curves are in it, and it works without a script.
`explanation_figure` makes the one picture of a single image.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from caudal import __version__
from caudal.core.files import write_whole
from caudal.core.messages import _, language
from caudal.inference.explain.explanation import Curve, Explanation
from caudal.runs.report import axes, heat, paint
from caudal.runs.report.charts import Chart, Line, draw
from caudal.runs.report.curves import Figure

MOST_SIDE_PX = 512
_STYLES = ("main", "second", "third", "fourth", "fifth", "sixth")
SMOOTH = {"integrated_gradients": 0.012}
"""Blur for the eye of methods whose maps are single pixels; figures are of the map as it is."""

_MARGIN = 0.01  # areas closer than this are the same


@dataclass(frozen=True, slots=True)
class ClassProbability:
    """A class's probability as the model gives it, and calibrated by the card's temperature if it has one."""

    name: str
    raw: float
    calibrated: float | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """The temperature that held-out data asked for, and the calibration error before and after."""

    temperature: float
    error_raw: float | None = None
    error_calibrated: float | None = None


@dataclass(frozen=True, eq=False, slots=True)
class ExplainedImage:
    """An image with its explanations, all of one class.

    `picture` is (H, W, 3) uint8 as people see it; maps and `lesion_HW` cover the same rectangle. `classes`
    are in the order of class numbers; `truth` is the name of the right class, where it is known.
    """

    name: str
    picture: paint.Picture
    classes: Sequence[ClassProbability]
    explanations: Sequence[Explanation]
    lesion_HW: npt.NDArray[np.bool_] | None = None
    truth: str | None = None

    @property
    def target(self) -> ClassProbability:
        """The class that is explained."""
        return self.classes[self.explanations[0].target]

    @property
    def shown_px(self) -> tuple[int, int]:
        """Rows and columns at which it is shown: at most `MOST_SIDE_PX`."""
        height, width = self.picture.shape[:2]
        shrink = min(1.0, MOST_SIDE_PX / max(height, width))
        return max(1, round(height * shrink)), max(1, round(width * shrink))

    def shown(self) -> paint.Picture:
        """The picture at that size."""
        small: paint.Picture = heat.resized(self.picture, self.shown_px).astype(np.uint8)
        return small


def write_explanations(
    out: Path,
    items: Sequence[ExplainedImage],
    *,
    title: str,
    calibration: Calibration | None = None,
    training: Sequence[Figure] = (),
    warnings: Sequence[str] = (),
) -> None:
    """Write the page; `training` are curves of the run (`curves.curves`), `title` is usually its name.

    Raises:
        DiskFull: no space was left; an earlier page stays.
    """
    text = render(items, title=title, calibration=calibration, training=training, warnings=warnings)
    write_whole(out, lambda part: part.write_text(text, encoding="utf-8"))


def render(
    items: Sequence[ExplainedImage],
    *,
    title: str,
    calibration: Calibration | None = None,
    training: Sequence[Figure] = (),
    warnings: Sequence[str] = (),
) -> str:
    """The page as HTML."""
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.globals["_"] = _
    methods = list(dict.fromkeys(one.method for item in items for one in item.explanations))
    return env.get_template("explanation.html.j2").render(
        language=language(),
        version=__version__,
        written=time.strftime("%Y-%m-%d %H:%M"),
        title=title,
        items=[_shown(number, item) for number, item in enumerate(items, 1)],
        methods=[(method_name(method), about_method(method)) for method in methods],
        calibration=calibration and _calibration(calibration),
        training=training,
        warnings=warnings,
        scale=heat.scale_colours(),
    )


def method_name(method: str) -> str:
    """A method's name as people read it."""
    names = {
        "gradcam": "Grad-CAM",
        "hirescam": "HiResCAM",
        "integrated_gradients": _("Integrated gradients"),
        "occlusion": _("Occlusion"),
    }
    return names.get(method, method.replace("_", " "))


def about_method(method: str) -> str:
    """What a method does, in a sentence."""
    return {
        "gradcam": _(
            "features of a layer, each weighed by its mean gradient; may point at places that were not used"
        ),
        "hirescam": _("features of a layer, each weighed by its gradient at that very place"),
        "integrated_gradients": _(
            "gradients of pixels, summed on the way from an empty image to this one; smoothed for the eye"
        ),
        "occlusion": _("how much the score falls when a square is covered"),
    }.get(method, "")


def verdicts(one: Explanation) -> list[tuple[bool, str]]:
    """What the checks say of a map: whether that is good, and in words."""
    found = []
    if one.randomization is not None:
        apart = one.randomization.falls_apart
        good, bad = (
            _("needs what the model learned"),
            _("looks alike without what the model learned: do not rely on it"),
        )
        found.append((apart, good if apart else bad))
    if one.deletion is not None:
        better = one.deletion.random_area - one.deletion.area > _MARGIN
        good, bad = (
            _("finds what matters sooner than noise does"),
            _("finds what matters no sooner than noise"),
        )
        found.append((better, good if better else bad))
    return found


def _data_uri(png: bytes) -> Markup:
    return Markup("data:image/png;base64," + base64.b64encode(png).decode())


def _calibration(calibration: Calibration) -> dict[str, str | None]:
    def error(value: float | None) -> str | None:
        return None if value is None else axes.figure(value)

    return {
        "temperature": f"{calibration.temperature:.3g}",
        "raw": error(calibration.error_raw),
        "calibrated": error(calibration.error_calibrated),
    }


def _shown(number: int, item: ExplainedImage) -> dict[str, Any]:
    """What the template shows of one image."""
    height, width = item.shown_px
    target = item.target
    best = target.raw if target.calibrated is None else target.calibrated
    return {
        "number": number,
        "name": item.name,
        "height": height,
        "width": width,
        "photo": _data_uri(paint.photo_png(item.shown())),
        "target": target.name,
        "probability": axes.percent(best),
        "truth": item.truth,
        "classes": [_class_row(one, one is target) for one in item.classes],
        "calibrated": any(one.calibrated is not None for one in item.classes),
        "panels": [_panel(item, one) for one in item.explanations],
        "outlines": _outlines(item),
        "mask_area": None if item.lesion_HW is None else axes.percent(float(item.lesion_HW.mean())),
        "rows": [_row(one) for one in item.explanations],
        "curves": _curves(item),
        "randomization": _randomization(item),
    }


def _class_row(one: ClassProbability, explained: bool) -> dict[str, Any]:
    best = one.raw if one.calibrated is None else one.calibrated
    return {
        "name": one.name,
        "raw": axes.figure(one.raw),
        "calibrated": axes.figure(one.calibrated),
        "width": 100 * best,
        "explained": explained,
    }


def _panel(item: ExplainedImage, one: Explanation) -> dict[str, Any]:
    levels_HW = heat.levels(one.map_HW, item.shown_px, SMOOTH.get(one.method, 0.0))
    return {
        "name": method_name(one.method),
        "layer": one.layer,
        "heat": _data_uri(heat.heat_png(levels_HW)),
        "verdicts": verdicts(one),
    }


def _outlines(item: ExplainedImage) -> str:
    """The mask's edges as one path of SVG."""
    if item.lesion_HW is None:
        return ""
    lines = heat.outlines(item.lesion_HW, item.shown_px)
    return "".join("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in line) + "Z" for line in lines)


def _row(one: Explanation) -> dict[str, Any]:
    """A method's figures; `None` for a check that was not made."""

    def pair(curve: Curve | None) -> tuple[str, str] | None:
        return None if curve is None else (axes.figure(curve.area), axes.figure(curve.random_area))

    inside, pointing = None, None
    if one.energy is not None:
        inside = "—" if one.energy.inside is None else axes.percent(one.energy.inside)
        pointing = {None: "—", True: _("yes"), False: _("no")}[one.energy.pointing]
    return {
        "name": method_name(one.method),
        "deletion": pair(one.deletion),
        "insertion": pair(one.insertion),
        "energy": inside,
        "pointing": pointing,
        "randomized": None
        if one.randomization is None
        else axes.figure(one.randomization.stages[-1].correlation),
    }


def _curves(item: ExplainedImage) -> list[Figure]:
    """Deletion and insertion, a line for each method."""
    found = []
    for name, title, along in (
        ("deletion", _("Deletion"), _("share of pixels taken away, the most important first")),
        ("insertion", _("Insertion"), _("share of pixels put in, the most important first")),
    ):
        drawn = [(one, getattr(one, name)) for one in item.explanations if getattr(one, name) is not None]
        if not drawn:
            continue
        styled = list(zip(_STYLES, drawn, strict=False))
        areas = "; ".join(f"{method_name(one.method)} {curve.area:.3f}" for one, curve in drawn)
        chart = Chart(
            about=_("{curve} of {image}; areas: {areas}.").format(curve=title, image=item.name, areas=areas),
            lines=[Line(curve.shares, curve.probabilities, style) for style, (_one, curve) in styled],
            x_range=(0.0, 1.0),
            y_range=(0.0, 1.0),
            x_ticks=axes.ticks(0.0, 1.0),
            y_ticks=axes.ticks(0.0, 1.0),
            height_px=200,
        )
        legend = [(style, method_name(one.method)) for style, (one, _curve) in styled]
        found.append(Figure(title, draw(chart), legend, along))
    return found


def _randomization(item: ExplainedImage) -> dict[str, Any] | None:
    """How alike maps stay: a row a stage, a column a method."""
    tested = [one for one in item.explanations if one.randomization is not None]
    if not tested:
        return None
    tables = [one.randomization.stages for one in tested if one.randomization is not None]
    rows = [
        (
            stages[0].module,
            [(axes.figure(stage.correlation), 100 * abs(stage.correlation)) for stage in stages],
        )
        for stages in zip(*tables, strict=True)
    ]
    styled = list(zip(_STYLES, (method_name(one.method) for one in tested), strict=False))
    return {"columns": styled, "rows": rows}
