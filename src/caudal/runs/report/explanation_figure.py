"""One explained image as one PNG: the picture and its maps beside each other, with a caption below."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from caudal.core.files import write_whole
from caudal.core.messages import _
from caudal.inference.explain.explanation import Explanation
from caudal.runs.report import axes, heat, paint
from caudal.runs.report.explanation import SMOOTH, ExplainedImage, method_name, verdicts

_PANEL_PX = 380  # the longer side of a panel
_GAP_PX, _EDGE_PX = 14, 20
_INK, _MUTE, _GOOD, _BAD, _PAPER = "#15222b", "#55646e", "#17693f", "#a3201d", "#ffffff"
_EDGE_COLOUR = (255, 255, 255)

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_Line = tuple[str, str, int]  # words, colour, size


def write_figure(out_png: Path, item: ExplainedImage) -> None:
    """Write the figure of `item`.

    Raises:
        DiskFull: no space was left; an earlier figure stays.
    """
    content = figure_png(item)
    write_whole(out_png, lambda part: part.write_bytes(content))


def figure_png(item: ExplainedImage) -> bytes:
    """The figure as a PNG."""
    height, width = item.picture.shape[:2]
    grow = _PANEL_PX / max(height, width)
    size_px = max(1, round(height * grow)), max(1, round(width * grow))
    picture = heat.resized(item.picture, size_px).astype("uint8")
    panels = [(_outlined(picture, item, size_px), [(_("Image"), _INK, 16), *_about_truth(item)])]
    for one in item.explanations:
        levels_HW = heat.levels(one.map_HW, size_px, SMOOTH.get(one.method, 0.0))
        panels.append((_outlined(heat.heat_over(picture, levels_HW), item, size_px), _captions(one)))
    column_px = max(size_px[1], 220)
    texts = [_wrapped(lines, column_px) for _panel, lines in panels]
    title = _wrapped(_title(item), len(panels) * (column_px + _GAP_PX) - _GAP_PX)
    top = _EDGE_PX + _tall(title) + 10
    wide = 2 * _EDGE_PX + len(panels) * (column_px + _GAP_PX) - _GAP_PX
    page = Image.new("RGB", (wide, top + size_px[0] + 8 + max(map(_tall, texts)) + _EDGE_PX), _PAPER)
    draw = ImageDraw.Draw(page)
    _write(draw, _EDGE_PX, _EDGE_PX, title)
    for k, ((panel, _lines), lines) in enumerate(zip(panels, texts, strict=True)):
        left = _EDGE_PX + k * (column_px + _GAP_PX)
        page.paste(panel, (left, top))
        _write(draw, left, top + size_px[0] + 8, lines)
    buffer = io.BytesIO()
    page.save(buffer, "png", optimize=True)
    return buffer.getvalue()


def _outlined(picture: paint.Picture, item: ExplainedImage, size_px: tuple[int, int]) -> Image.Image:
    panel = Image.fromarray(picture)
    if item.lesion_HW is not None:
        draw = ImageDraw.Draw(panel)
        for line in heat.outlines(item.lesion_HW, size_px):
            draw.line([*line, line[0]], fill=_EDGE_COLOUR, width=2)
    return panel


def _title(item: ExplainedImage) -> list[_Line]:
    target = item.target
    said = _("{name}: class {target}, probability {probability}").format(
        name=item.name, target=target.name, probability=axes.percent(target.raw)
    )
    if target.calibrated is not None:
        said += " " + _("({probability} calibrated)").format(probability=axes.percent(target.calibrated))
    return [(said, _INK, 20)]


def _about_truth(item: ExplainedImage) -> list[_Line]:
    lines = []
    if item.truth is not None:
        lines.append((_("In truth: {name}.").format(name=item.truth), _MUTE, 14))
    if item.lesion_HW is not None:
        share = axes.percent(float(item.lesion_HW.mean()))
        lines.append((_("The line is the mask, {share} of the picture.").format(share=share), _MUTE, 14))
    return lines


def _captions(one: Explanation) -> list[_Line]:
    """Name, figures and verdicts of a map."""
    lines = [(method_name(one.method), _INK, 16)]
    for name, curve in ((_("Deletion"), one.deletion), (_("Insertion"), one.insertion)):
        if curve is not None:
            said = _("{name} {area} (noise {noise})").format(
                name=name, area=axes.figure(curve.area), noise=axes.figure(curve.random_area)
            )
            lines.append((said, _MUTE, 14))
    if one.energy is not None and one.energy.inside is not None:
        said = _("Energy in the mask {share}").format(share=axes.percent(one.energy.inside))
        lines.append((said, _MUTE, 14))
    return lines + [(text, _GOOD if good else _BAD, 14) for good, text in verdicts(one)]


def _font(size: int) -> _Font:
    """A font with accents: one of the system's, else Pillow's own."""
    for name in ("DejaVuSans.ttf", "LiberationSans-Regular.ttf", "Arial.ttf"):
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


def _wrapped(lines: list[_Line], wide_px: int) -> list[_Line]:
    """The same lines, those too wide broken between words."""
    found: list[_Line] = []
    for text, colour, size in lines:
        font, row = _font(size), ""
        for word in text.split():
            longer = f"{row} {word}".strip()
            if row and font.getlength(longer) > wide_px:
                found.append((row, colour, size))
                longer = word
            row = longer
        found.append((row, colour, size))
    return found


def _tall(lines: list[_Line]) -> int:
    return sum(size + 6 for _text, _colour, size in lines)


def _write(draw: ImageDraw.ImageDraw, left: int, top: int, lines: list[_Line]) -> None:
    for text, colour, size in lines:
        draw.text((left, top), text, fill=colour, font=_font(size))
        top += size + 6
