"""Laws of the page of explanations: it needs nothing else, shows every figure, says when not to believe."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from caudal.inference.explain.explanation import Curve, Energy, Explanation, Randomization, Stage
from caudal.runs.report import heat
from caudal.runs.report.curves import Figure
from caudal.runs.report.explanation import (
    MOST_SIDE_PX,
    Calibration,
    ClassProbability,
    ExplainedImage,
    render,
    verdicts,
    write_explanations,
)
from caudal.runs.report.explanation_figure import write_figure

HIGH, WIDE = 60, 90


def _curve(area: float, random_area: float = 0.5) -> Curve:
    shares = np.linspace(0, 1, 5)
    return Curve(shares, np.linspace(1, 2 * area - 1, 5), area, random_area)


def _explanation(method: str = "hirescam", correlation: float = 0.1) -> Explanation:
    map_HW = np.full((HIGH, WIDE), -1.0, np.float32)
    map_HW[10:20, 30:50] = 2.0
    return Explanation(
        map_HW=map_HW,
        method=method,
        layer="" if method == "occlusion" else "stage.3",
        target=1,
        probability=0.875,
        deletion=_curve(0.1236),
        insertion=_curve(0.8125),
        randomization=Randomization((Stage("head", 0.9), Stage("stem", correlation))),
        energy=Energy(0.75, 0.125, True),
    )


def _item(**change: object) -> ExplainedImage:
    picture = np.random.default_rng(0).integers(0, 255, (HIGH, WIDE, 3), dtype=np.uint8)
    lesion_HW = np.zeros((HIGH, WIDE), bool)
    lesion_HW[5:25, 20:60] = True
    item = ExplainedImage(
        name="lunar & niño.jpg",
        picture=picture,
        classes=[ClassProbability("nevus", 0.125, 0.2501), ClassProbability("<melanoma>", 0.875, 0.7499)],
        explanations=[_explanation(), _explanation("occlusion", 0.8)],
        lesion_HW=lesion_HW,
        truth="nevus",
    )
    return replace(item, **change)


class _Reader(HTMLParser):
    """Tags that were opened and closed, their attributes, and the words of the page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def _read(*items: ExplainedImage, **more: object) -> _Reader:
    read = _Reader(render(items or [_item()], title="runs/moles", **more))
    assert read.open == []
    return read


def test_the_page_needs_nothing_else_and_no_script() -> None:
    page = render([_item()], title="runs/moles")
    assert "<script" not in page
    sources = re.findall(r'(?:href|src)="([^"]+)"', page)
    assert {source.split(",")[0] for source in sources if not source.startswith("#")} == {
        "data:image/png;base64"
    }
    assert not re.search(r"https?:|url\(|@import", page)


def test_the_page_shows_every_figure() -> None:
    said = _read(calibration=Calibration(1.375, 0.0912, 0.0304)).words
    for figure in (
        "0.875", "0.750", "0.250", "0.124", "0.812", "noise 0.500", "75 %", "0.900", "0.100", "0.800",
        "1.38", "0.091", "0.030", "stage.3", "nevus", "<melanoma>", "lunar & niño.jpg", "15 %",
    ):  # fmt: skip
        assert figure in said, figure


def test_a_map_that_stays_alike_is_not_to_be_relied_on() -> None:
    good, bad = _explanation(), _explanation(correlation=-0.8)
    assert [one for one, _words in verdicts(good)] == [True, True]
    assert [one for one, _words in verdicts(bad)] == [False, True]
    useless = replace(good, deletion=_curve(0.4999))
    assert [one for one, _words in verdicts(useless)] == [True, False]
    assert "do not rely on it" in _read(_item(explanations=[bad])).words
    assert "do not rely on it" not in _read(_item(explanations=[good])).words


def test_every_picture_has_words_and_every_table_its_headings() -> None:
    read = _read()
    svgs = [given for tag, given in read.attributes if tag == "svg"]
    spoken = [given["aria-label"] for given in svgs if given.get("role") == "img"]
    assert len(spoken) == 3
    assert all(spoken)
    assert all(given.get("aria-hidden") == "true" for given in svgs if "class" in given)
    assert all(given.get("scope") in ("col", "row") for tag, given in read.attributes if tag == "th")
    ids = [given["id"] for _tag, given in read.attributes if "id" in given]
    assert len(ids) == len(set(ids))


def test_checks_that_were_not_made_leave_no_hole() -> None:
    bare = replace(_explanation(), deletion=None, insertion=None, randomization=None, energy=None, layer="")
    plain = [ClassProbability("a", 0.5), ClassProbability("b", 0.5)]
    said = _read(_item(classes=plain, explanations=[bare], lesion_HW=None, truth=None)).words
    assert "None" not in said
    assert "Calibrated" not in said
    nowhere = replace(_explanation(), energy=Energy(None, 0.1, None))
    assert "None" not in _read(_item(explanations=[nowhere])).words
    assert "No image was explained." in _Reader(render([], title="x")).words


def test_training_curves_and_warnings_are_on_the_page() -> None:
    from markupsafe import Markup

    figure = Figure("Loss & more", Markup("<svg aria-hidden='true'></svg>"), [("main", "batch")], "steps")
    said = _read(training=[figure], warnings=["one class is rare"]).words
    assert "Loss & more" in said
    assert "one class is rare" in said


def test_large_pictures_are_made_small_and_small_maps_follow_them() -> None:
    large = np.zeros((1200, 2400, 3), np.uint8)
    page = render([_item(picture=large)], title="x")
    sizes = {
        Image.open(io.BytesIO(base64.b64decode(text))).size
        for text in re.findall(r"data:image/png;base64,([^\"]+)", page)
    }
    assert sizes == {(MOST_SIDE_PX, MOST_SIDE_PX // 2)}


def test_heat_lies_where_the_map_is_positive() -> None:
    levels_HW = heat.levels(_explanation().map_HW, (HIGH, WIDE))
    assert (levels_HW > 0).sum() == 10 * 20
    assert (levels_HW[10:20, 30:50] == levels_HW.max()).all()
    assert not heat.levels(np.full((4, 4), -1, np.float32), (8, 8)).any()
    image = Image.open(io.BytesIO(heat.heat_png(levels_HW))).convert("RGBA")
    opacity_HW = np.asarray(image)[:, :, 3]
    assert (opacity_HW[levels_HW == 0] == 0).all()
    assert (opacity_HW[levels_HW > 0] > 200).all()


def test_outlines_close_around_the_mask() -> None:
    (line,) = heat.outlines(_item().lesion_HW, (2 * HIGH, 2 * WIDE))
    x, y = zip(*line, strict=True)
    assert (min(x), max(x), min(y), max(y)) == (41, 119, 11, 49)


def test_files_are_written_whole(tmp_path: Path) -> None:
    write_explanations(tmp_path / "why.html", [_item()], title="runs/moles")
    write_figure(tmp_path / "why.png", _item())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["why.html", "why.png"]
    assert (tmp_path / "why.html").read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize("size", [(1, 1), (30, 1000), (700, 20)])
def test_a_figure_holds_the_picture_and_every_map(tmp_path: Path, size: tuple[int, int]) -> None:
    picture = np.zeros((*size, 3), np.uint8)
    picture[..., 2] = 255
    item = _item(picture=picture, name="a very long name " * 20)
    write_figure(tmp_path / "why.png", item)
    page_HWC = np.asarray(Image.open(tmp_path / "why.png"))
    assert page_HWC.shape[2] == 3
    blue_HW = (page_HWC == (0, 0, 255)).all(2)
    assert blue_HW.any()
    # The maps lie to the right of the picture, over its grey.
    right = np.flatnonzero(blue_HW.any(0))[-1]
    assert (page_HWC[:, right + 1 :].std(2) > 20).any()
    assert page_HWC.shape[1] > 3 * (right - np.flatnonzero(blue_HW.any(0))[0])
