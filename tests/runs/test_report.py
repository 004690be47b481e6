"""Laws of the report: one page that needs nothing else, true to the folder, whatever state the run is in."""

from __future__ import annotations

import fcntl
import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from caudal.core.errors import UsageError
from caudal.core.events import (
    CheckpointSaved,
    Event,
    MemoryRead,
    RunEnded,
    RunStarted,
    StepDone,
    Validated,
    Warned,
    encode,
)
from caudal.core.geometry import Window
from caudal.core.units import MIB, Bytes
from caudal.data.chunk_reader import OpenFiles
from caudal.data.classes import Classes
from caudal.data.index import build
from caudal.data.normalize import Normalization
from caudal.data.pairs import find_pairs
from caudal.data.scenes import make_scenes
from caudal.data.world import BAND_NAMES
from caudal.memory.cost import Forward, ProbeResult
from caudal.memory.plan import Holder, LeverSet, MemoryPlan, Point, Rejected
from caudal.models import weights
from caudal.runs.facts import SceneFacts
from caudal.runs.folder import RunFolder
from caudal.runs.loading import load_model
from caudal.runs.plan import TrainPlan
from caudal.runs.report import axes, charts, examples, paint
from caudal.runs.report.story import read_story
from caudal.runs.result import Result
from caudal.runs.spec import RunSpec
from caudal.runs.tiling import Tiling
from caudal.runs.verbs.plan import make_spec
from caudal.runs.verbs.report import report

STEPS = 40
PREDICTED = {"ram": 300 * MIB, "vram": 0}
BUDGET = {"ram": 512 * MIB, "vram": 0}
METRICS = {
    "iou": 0.8125, "dice": 0.9, "accuracy": None, "images": 2.0,
    "iou_0": 0.95, "support_0": 123456.0, "iou_1": None, "support_1": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_scenes(folder, 4, (96, 96), seed=3)
    return folder


def _plan(spec: RunSpec) -> TrainPlan:
    forward = Forward(side_px=256, ram=Bytes(4 * MIB), seconds=0.1)
    return TrainPlan(
        spec=spec, asked=spec, device="cpu", precision="auto", point=Point(micro_batch=8, open_blocks=4),
        arena=Bytes(MIB), compute_threads=1,
        memory=MemoryPlan(
            ram=Bytes(BUDGET["ram"]),
            holders=(
                Holder(name="activations and workspace", bytes=Bytes(200 * MIB), exact=False),
                Holder(name="interpreter", bytes=Bytes(100 * MIB)),
            ),
            levers=(LeverSet(name="micro_batch", value="8", why="16 would take 600 MiB"),),
            rejected=(Rejected(change="micro_batch 16", why="88 MiB too much"),),
        ),
        probe=ProbeResult(device="cpu", imported=Bytes(100 * MIB), static={}, forwards=(forward,)),
        facts=SceneFacts(
            images=4, held_out=2, bands=5, dtype="uint16", band_names=(), smallest_px=(96, 96),
            largest_px=(96, 96), decoded=Bytes(1), on_disk=Bytes(1), samples_per_epoch=9, block_px=(96, 96),
            patch_px=64,
        ),
        seconds=20.0, samples_per_second=50.0, train=(0, 1), held_out=(2, 3),
        warnings=("planned <b>warning</b>",),
    )  # fmt: skip


def _started(at: float, step: int = 0) -> Event:
    return RunStarted("segmentation", "cpu", step, STEPS, PREDICTED, BUDGET, time=at)


def _steps(at: float, first: int, last: int) -> list[Event]:
    """One step a second, with a reading of memory beside it, and scores every ten steps."""
    events: list[Event] = []
    for step in range(first, last + 1):
        now = at + step - first + 1
        events.append(StepDone(step, 0, 1 / step, 1e-3, 16, 0.4, 0.1, time=now))
        events.append(MemoryRead(200 * MIB + step, None, time=now))
        if step % 10 == 0:
            events.append(Validated(step, 0, {**METRICS, "iou": step / 50}, True, time=now))
    return events


def _ended(at: float, outcome: str, error: str = "") -> Event:
    return RunEnded(outcome, 41.0, 40.0, 0.25, {"ram": 330 * MIB, "vram": 0}, {}, error, time=at)


def _run(path: Path, data: Path, events: list[Event], *, result: bool = False, plan: bool = True) -> Path:
    spec = make_spec("segmentation", data, training={"steps": STEPS}, device="cpu")
    folder = RunFolder(path)
    folder.begin(spec)
    if plan:
        folder.write_json(folder.plan, _plan(spec).model_dump(mode="json"))
    folder.events.write_text("".join(encode(event) + "\n" for event in events), encoding="utf-8")
    if result:
        ended = Result(verb="train", metrics=METRICS, peak_bytes={"ram": 330 * MIB, "vram": 0}, seconds=41.0)
        folder.write_json(folder.result, ended.model_dump(mode="json"))
    return path


def _model(path: Path) -> None:
    """An untrained model, seeded, for five bands and two classes."""
    torch.manual_seed(1)
    model = weights.build("unet", 5, 2, {"width": 4, "depth": 2})
    card = weights.ModelCard(
        task="segmentation", architecture="unet", config={"width": 4, "depth": 2}, bands=5, outputs=2,
        band_names=BAND_NAMES, normalization=Normalization.plain(5).model_dump(mode="json"),
        classes=Classes(values=(0, 1)).model_dump(mode="json"),
        memory={"device": "cpu", "forwards": [{"side_px": 256, "ram": 4 * MIB, "seconds": 0.1}]},
    )  # fmt: skip
    weights.save(path / "model", model, card)


def _page(run: Path) -> str:
    return report(run).read_text(encoding="utf-8")


def _finished() -> list[Event]:
    return [_started(0), *_steps(0, 1, STEPS), _ended(41, "succeeded")]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, scenes: Path) -> Path:
    """A finished run with a model and its report."""
    run = _run(tmp_path_factory.mktemp("runs") / "roofs", scenes, _finished(), result=True)
    _model(run)
    report(run)
    return run


# The page.


def test_the_page_needs_nothing_else(drawn: Path) -> None:
    page = (drawn / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "@import" not in page
    assert "url(" not in page
    assert not re.findall(r'(?:src|href)="(?!data:image/png;base64,|#photo-\d)', page)
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page


def test_the_page_tells_what_was_promised_and_what_was_measured(drawn: Path) -> None:
    page = (drawn / "report.html").read_text(encoding="utf-8")
    for text in ("Succeeded", "0.812", "300 MiB", "330 MiB", "budget 512 MiB", "10 % above the prediction"):
        assert text in page
    for text in ("activations and workspace", "16 would take 600 MiB", "micro_batch 16", "88 MiB too much"):
        assert text in page


def test_a_figure_that_is_none_is_a_dash_and_is_explained(drawn: Path) -> None:
    page = (drawn / "report.html").read_text(encoding="utf-8")
    assert '<th scope="row">1</th><td class="n">—</td><td class="n">0</td>' in page
    assert "no figure. The class is in no mask that was scored" in page


def test_text_from_outside_is_no_markup(tmp_path: Path, scenes: Path) -> None:
    evil = "<script>alert(1)</script>"
    events = [_started(0), Warned(evil, time=1), _ended(2, "failed", evil)]
    page = _page(_run(tmp_path / "run", scenes, events))
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 2
    assert "planned &lt;b&gt;warning" in page


def test_every_picture_has_words(drawn: Path) -> None:
    page = (drawn / "report.html").read_text(encoding="utf-8")
    pictures = re.findall(r"<[a-z]+[^>]*role=\"img\"[^>]*>", page)
    assert len(pictures) > 8
    assert all(re.search(r'aria-label="[^"]{5,}"', tag) for tag in pictures)
    assert all("scope=" in tag for tag in re.findall(r"<th\b[^>]*>", page))


# Runs in every state.


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([_started(0), *_steps(0, 1, 7)], "ended after step 7 without saying why"),
        ([_started(0), *_steps(0, 1, 7), _ended(8, "interrupted")], "interrupted after step 7"),
        ([_started(0), *_steps(0, 1, 7), _ended(8, "failed", "The disk is full.")], "The disk is full."),
        ([_started(0), *_steps(0, 1, 1)], "after step 1 "),
        ([], "Nothing was scored yet."),
    ],
)
def test_an_unfinished_run_says_so_and_shows_what_there_is(
    events: list[Event], words: str, tmp_path: Path, scenes: Path
) -> None:
    page = _page(_run(tmp_path / "run", scenes, events))
    assert words in page
    assert "No model was stored yet." in page
    assert "caudal train" in page
    assert ("Training loss" in page) == bool(events)


def test_a_run_that_another_process_works_in_is_still_running(tmp_path: Path, scenes: Path) -> None:
    run = _run(tmp_path / "run", scenes, [_started(0), *_steps(0, 1, 3)])
    with (run / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert read_story(RunFolder(run)).outcome == "running"
    assert read_story(RunFolder(run)).outcome == "stopped"


def test_a_run_without_a_plan_is_shown_without_promises(tmp_path: Path, scenes: Path) -> None:
    page = _page(_run(tmp_path / "run", scenes, _finished(), result=True, plan=False))
    assert "There is no plan" in page
    assert "Training loss" in page


def test_a_cut_last_line_is_left_out(tmp_path: Path, scenes: Path) -> None:
    run = _run(tmp_path / "run", scenes, [_started(0), *_steps(0, 1, 5)])
    with (run / "events.jsonl").open("a") as file:
        file.write('{"kind": "step_d')
    assert read_story(RunFolder(run)).done_steps == 5


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        report(tmp_path)


# The story.


def test_steps_done_again_after_a_resumption_count_once_and_the_pause_is_no_work(
    tmp_path: Path, scenes: Path
) -> None:
    first = [_started(0), *_steps(0, 1, 17)]
    again = [_started(5000, step=10), *_steps(5000, 11, STEPS)]
    story = read_story(RunFolder(_run(tmp_path / "run", scenes, [*first, *again])))
    assert list(story.steps) == list(range(1, STEPS + 1))
    assert [score.step for score in story.scores] == [10, 20, 30, 40]
    assert story.seconds == 17 + 30
    assert story.resumed_at == [17]


def test_the_peak_is_the_largest_that_anyone_saw(tmp_path: Path, scenes: Path) -> None:
    killed = read_story(RunFolder(_run(tmp_path / "a", scenes, [_started(0), *_steps(0, 1, 5)])))
    ended = read_story(RunFolder(_run(tmp_path / "b", scenes, _finished())))
    assert (killed.peaks["ram"], ended.peaks["ram"]) == (200 * MIB + 5, 330 * MIB)


def test_events_that_draw_nothing_do_no_harm(tmp_path: Path, scenes: Path) -> None:
    events = [_started(0), CheckpointSaved(1, "x", 1, 0.1, time=1), *_steps(1, 1, 2)]
    assert read_story(RunFolder(_run(tmp_path / "run", scenes, events))).done_steps == 2


# Examples.


def test_examples_are_on_the_page_and_in_the_folder(drawn: Path) -> None:
    page = (drawn / "report.html").read_text(encoding="utf-8")
    names = sorted(path.name for path in (drawn / "examples").iterdir())
    assert names == ["1-scene-003.png", "2-scene-004.png"]
    assert page.count("data:image/png;base64,") == 4 * len(names)
    with Image.open(drawn / "examples" / names[0]) as strip:
        assert strip.size == (4 * 96 + 3 * 8, 96)


def test_an_example_shows_what_the_model_says_of_the_whole_image(drawn: Path) -> None:
    folder, window = RunFolder(drawn), Window(24, 40, 40, 48)
    loaded = load_model(drawn, "cpu")
    index = examples._index(TrainPlan.model_validate(folder.read_json(folder.plan)))
    files, i = OpenFiles(), 2
    tiling = Tiling(core_px=64, context_px=int(loaded.model.receptive_field_px), multiple_px=4, mode="exact")  # type: ignore[arg-type]
    pixels, class_HW = examples._predict(loaded, index, files, tiling, i, window)
    whole = files.read(index.image(i), Window(0, 0, 96, 96)).x_HWC
    expected_HW = loaded.forward(0)(whole[None], None)[0].argmax(0)
    np.testing.assert_array_equal(class_HW, expected_HW[window.slices])
    np.testing.assert_array_equal(pixels.x_HWC, whole[window.slices])
    files.close()


def test_without_the_data_the_page_says_why_there_are_no_examples(tmp_path: Path) -> None:
    run = _run(tmp_path / "run", tmp_path / "gone", _finished(), result=True)
    _model(run)
    page = _page(run)
    assert "There are none:" in page
    assert "gone" in page.split("There are none:")[1][:200]


def test_data_that_changed_give_no_examples(drawn: Path) -> None:
    folder = RunFolder(drawn)
    values = folder.read_json(folder.plan)
    values["facts"]["images"] = 5
    found, why = examples.draw_examples(folder, TrainPlan.model_validate(values))
    assert found == []
    assert "changed" in why


def test_a_budget_without_room_leaves_the_examples_out(drawn: Path) -> None:
    folder = RunFolder(drawn)
    values = folder.read_json(folder.plan)
    values["memory"]["ram"] = values["probe"]["imported"] + MIB
    found, why = examples.draw_examples(folder, TrainPlan.model_validate(values))
    assert found == []
    assert "no room" in why


def test_large_images_are_shown_where_there_is_something_to_find(tmp_path: Path) -> None:
    make_scenes(tmp_path, 2, (1100, 700), seed=1)
    index = build(find_pairs([tmp_path], []))
    reader = examples.ChunkReader(index, Classes(values=(0, 1)), np.zeros((1, 5), np.float32), OpenFiles())
    window = examples._window(reader, 0)
    assert (window.height, window.width) == (512, 512)
    assert window.clip(1100, 700) == window
    assert (reader.classes_in(0, window) == 1).any()
    reader.files.close()


# Drawing.


def test_bands_are_shown_by_name_else_in_their_order() -> None:
    assert paint.composite_bands(("blue", "green", "red", "nir", "swir"), 5) == (2, 1, 0)
    assert paint.composite_bands(("B02", "B03", "B04", "B08"), 4) == (2, 1, 0)
    assert paint.composite_bands((), 5) == (0, 1, 2)
    assert paint.composite_bands((), 1) == (0, 0, 0)


def test_a_stretch_spreads_what_is_valid_and_blackens_the_rest() -> None:
    x_HWC = np.repeat(np.arange(100, dtype=np.uint16).reshape(10, 10, 1) * 7 + 300, 3, axis=2)
    x_HWC[0, 0] = 60000
    valid_HW = np.ones((10, 10), bool)
    valid_HW[0, 0] = False
    picture = paint.stretched(x_HWC, valid_HW)
    assert picture[0, 0].tolist() == [0, 0, 0]
    assert picture.max() == 255
    assert paint.stretched(np.zeros((4, 4, 3)), None).max() == 0


def test_the_difference_tells_right_missed_and_false_from_unknown() -> None:
    truth_HW = np.array([[0, 1, 1, 0, 255, 2]], np.uint8)
    predicted_HW = np.array([[0, 1, 0, 1, 1, 1]], np.uint8)
    assert paint.difference_layer(truth_HW, predicted_HW).numbers_HW.tolist() == [[0, 1, 2, 3, 0, 2]]


def test_a_layer_survives_as_png() -> None:
    layer = paint.class_layer(np.array([[0, 1, 2, 255]], np.uint8), 3)
    with Image.open(io.BytesIO(paint.layer_png(layer))) as image:
        rgba = np.array(image.convert("RGBA"))[0]
    assert rgba[:, :3].tolist()[1:] == [list(colour) for colour in layer.colours]
    assert (rgba[:, 3] > 0).tolist() == [False, True, True, True]


def test_thinning_keeps_the_highest_and_the_lowest_point() -> None:
    y = np.sin(np.arange(50_000.0))
    y[31_234], y[777] = 9.0, -9.0
    x, thin = charts.thinned(np.arange(50_000.0), y)
    assert len(thin) <= 700
    assert (thin.max(), thin.min()) == (9.0, -9.0)
    assert (np.diff(x) > 0).all()


def test_smoothing_keeps_a_constant_and_the_length() -> None:
    assert charts.smoothed(np.full(7, 3.0), 2) == pytest.approx(np.full(7, 3.0))


def test_a_flat_or_single_point_chart_is_drawn() -> None:
    one = np.array([1.0])
    drawing = charts.draw(
        charts.Chart("one point", [charts.Line(one, one, "main")], (1, 1), (1, 1), [(1, "1")], [(1, "1")])
    )
    assert "nan" not in drawing
    assert "<circle" in drawing


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.271, 0.274), (0.0, 2e-3), (3.0, 1700.0)])
def test_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    ticks = axes.ticks(low, high)
    assert 2 <= len(ticks) <= 6
    assert all(low <= value + 1e-12 and value <= high + 1e-12 for value, _text in ticks)
    assert len({text for _value, text in ticks}) == len(ticks)


def test_numbers_read_as_people_write_them() -> None:
    assert [axes.seconds(s) for s in (0.5, 42, 200, 3600, 3900)] == [
        "0.5 s", "42 s", "3 min 20 s", "1 h", "1 h 5 min",
    ]  # fmt: skip
    assert axes.byte_ticks(600 * MIB) == [(k * 128 * MIB, t) for k, t in enumerate(
        ("0", "128 MiB", "256 MiB", "384 MiB", "512 MiB"))]  # fmt: skip
    assert axes.deviation(103, 100) == "3.0 % above the prediction"
    assert axes.deviation(100, 100) == "as predicted"
    assert axes.figure(None) == "—"
