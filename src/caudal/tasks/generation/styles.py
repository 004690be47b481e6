"""Styles: words around a prompt, and words against what a style should not have."""

from __future__ import annotations

from dataclasses import dataclass

from caudal.core.errors import UsageError
from caudal.core.messages import _


@dataclass(frozen=True)
class Style:
    """`template` holds `{prompt}`; `against` is added to the negative prompt."""

    template: str = "{prompt}"
    against: str = ""


STYLES: dict[str, Style] = {
    "none": Style(),
    "watercolour": Style(
        "watercolour painting of {prompt}, soft washes, visible paper grain, loose brushwork, muted light",
        "photograph, 3d render, hard outlines, glossy",
    ),
    "film_noir": Style(
        "black and white film still of {prompt}, low-key lighting, venetian blind shadows, fine grain, 1940s",
        "colour, modern clothes, flat light",
    ),
    "neon": Style(
        "{prompt}, lit by neon signs at night, magenta and cyan glow, wet streets, reflections, sharp detail",
        "daylight, dull colours, washed out",
    ),
    "jungle": Style(
        "{prompt} among dense tropical leaves, dappled sunlight, humid haze, rich greens, sharp focus",
        "city, snow, indoor, desaturated",
    ),
    "mars": Style(
        "{prompt} on a red desert planet, dust, thin orange sky, wide view, cinematic light",
        "trees, water, buildings, blue sky",
    ),
    "vibrant": Style(
        "portrait of {prompt}, vivid saturated colours, bold graphic shapes, studio light, crisp detail",
        "grey, faded, low contrast",
    ),
    "snow": Style(
        "{prompt} in falling snow, winter light, breath in the cold air, soft depth of field",
        "summer, green leaves, harsh sun",
    ),
    "line_art": Style(
        "line drawing of {prompt}, clean ink strokes, white background, even line weight",
        "photograph, colour, shading, texture",
    ),
}


def styled(style: str, prompt: str, negative: str) -> tuple[str, str]:
    """The prompt and the negative prompt with a style's words.

    Raises:
        UsageError: there is no such style.
    """
    if style not in STYLES:
        raise UsageError(
            _("There is no style “{style}”.").format(style=style),
            _("Choose one of: {names}.").format(names=", ".join(STYLES)),
        )
    chosen = STYLES[style]
    parts = [part for part in (negative, chosen.against) if part]
    return chosen.template.replace("{prompt}", prompt), ", ".join(parts)
