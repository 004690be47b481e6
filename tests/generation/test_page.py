"""The page: what stands behind it works without any page library, and the page itself works in a browser."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from caudal.cli.generate_desk import Controls, Desk
from caudal.core.errors import UsageError
from caudal.runs.generation.studio import Budgets, Studio, open_model
from tests.generation import tiny

CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture
def desk(model: Path, tmp_path: Path) -> Iterator[Desk]:
    made = Desk(Studio(open_model(model), "stand_in", Budgets(device="cpu")), tmp_path / "pictures")
    yield made
    made.close()


def controls(face: Path, **changes: object) -> Controls:
    given = {"prompt": "a man", "width": 64, "height": 64, "like_pose": False, "steps": 2}
    return Controls(face=str(face), **(given | changes))  # type: ignore[arg-type]


def test_the_peak_is_said_before_anything_is_loaded(desk: Desk, face: Path) -> None:
    page = desk.predicted(controls(face))
    assert "64×64" in page
    assert "encoders" in page
    assert desk.studio._session is None


def test_what_is_wrong_is_said_on_the_page(desk: Desk, face: Path) -> None:
    assert "No face was given" in desk.predicted(Controls())
    assert "not divisible by 8" in desk.predicted(controls(face, width=100))
    (*_all, (_history, words, _seed)) = desk.make(controls(face, style="baroque"))
    assert "baroque" in words


def test_pictures_come_with_their_seed_and_stay_in_the_history(desk: Desk, face: Path) -> None:
    made = list(desk.make(controls(face, another_seed=False, seed=5, count=2)))
    more = list(desk.make(controls(face)))
    history, words, seed = more[-1]
    assert [len(one[0]) for one in made] == [1, 2]
    assert len(history) == 3
    assert [seed for _path, seed in history[1:]] == ["6", "5"]
    assert seed != 5
    assert all(Path(path).is_file() for path, _seed in history)
    assert "made in" in words


def test_cancelling_is_heard_between_steps_and_bars_show_them(desk: Desk, face: Path) -> None:
    seen: list[str] = []
    tick = desk._tick

    def at_a_step(done: int, total: int) -> None:
        tick(done, total)
        seen.append(desk.bars())
        assert desk.cancel() == "It stops after this step."

    desk._tick = at_a_step  # type: ignore[method-assign]
    ((_history, words, _seed),) = list(desk.make(controls(face, steps=9)))
    assert "Stopped between two steps" in words
    assert len(seen) == 1
    assert "1 / 9" in seen[0]
    assert "ram" in seen[0]
    assert desk.cancel() == "Nothing is being made."


def test_a_second_picture_waits_its_turn(desk: Desk, face: Path) -> None:
    first = desk.make(controls(face))
    next(first)
    ((_history, words, _seed),) = list(desk.make(controls(face)))
    assert "wait" in words
    list(first)


def test_further_controlnets_are_asked_for_by_kind(face: Path) -> None:
    wish = controls(
        face,
        control_strengths={"depth": 0.9, "canny": 0.0},
        control_pictures={"depth": "d.png", "canny": None},
    ).wish()
    assert wish.request.control_strengths == {"depth": 0.9, "canny": 0.0}
    assert wish.control_pictures == {"depth": "d.png"}


def test_bars_say_which_part_holds_what(desk: Desk, face: Path) -> None:
    list(desk.make(controls(face)))
    held = desk.studio.held()["ram"]
    part = desk.studio._session._parts["unet"]
    assert held["unet"] == sum(tensor.nbytes for tensor in part.tensors().values())
    assert held["everything else"] > 100 * 2**20
    assert "· unet" in desk.bars()


def test_a_warning_of_one_picture_is_not_said_of_the_next(desk: Desk, face: Path, tmp_path: Path) -> None:
    crowd = tiny.save_picture(tmp_path / "crowd.png", tiny.portrait(200, 90, faces=3))
    words, more = (list(desk.make(controls(path)))[-1][1] for path in (crowd, face))
    assert "3 faces" in words
    assert "3 faces" not in more


def test_few_steps_are_taken_where_they_are_asked_for(face: Path) -> None:
    request = controls(face, lcm=True).wish().request
    assert (request.scheduler, request.steps, request.guidance) == ("lcm", 8, 1.5)


def test_without_gradio_the_mend_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from caudal.cli import generate_page

    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UsageError, match="gradio"):
        generate_page._gradio()


def test_a_picture_is_made_and_another_cancelled_in_a_browser(
    model: Path, face: Path, tmp_path: Path
) -> None:
    gradio = pytest.importorskip("gradio")
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip("no Chromium")
    from caudal.cli.generate_page import build

    tiny.controlnet(8).save_pretrained(tmp_path / "canny")
    opened = open_model(model, controls={"canny": str(tmp_path / "canny")})
    desk = Desk(Studio(opened, "stand_in", Budgets(device="cpu")), tmp_path / "pictures")
    slow = threading.Event()
    tick = desk._tick

    def hold(done: int, total: int) -> None:
        tick(done, total)
        if total > 20:
            slow.wait(1.0)

    desk._tick = hold  # type: ignore[method-assign]
    page_of = build(gradio, desk, opened)
    _app, address, _shared = page_of.queue(default_concurrency_limit=4).launch(
        server_name="127.0.0.1",
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        allowed_paths=[str(desk.out)],
    )
    try:
        with playwright.sync_playwright() as p:
            browser = p.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1400, "height": 1200})
            page.goto(address)
            page.locator("#face input[type=file]").set_input_files(str(face))
            page.locator("#prompt textarea").fill("a man")
            assert page.get_by_text("Strength of canny").is_visible()
            page.get_by_text("More", exact=True).click()
            page.get_by_label("Size like the pose or the face picture").uncheck()
            for label, number in (("Width", 64), ("Height", 64), ("Steps", 2)):
                box = page.get_by_label(f"number input for {label}")
                box.fill(str(number))
                box.press("Enter")
            page.locator("#predicted").get_by_text("64×64").wait_for(timeout=60_000)
            page.locator("#generate").click()
            page.locator("#words").get_by_text("made in").wait_for(timeout=60_000)
            page.locator("#pictures img").first.wait_for(timeout=20_000)
            page.locator("#bars").get_by_text("ram").first.wait_for(timeout=20_000)
            box = page.get_by_label("number input for Steps")
            box.fill("90")
            box.press("Enter")
            page.locator("#generate").click()
            page.locator("#bars").get_by_text("/ 90").wait_for(timeout=20_000)
            page.locator("#bars").get_by_text("everything else").wait_for(timeout=20_000)
            page.locator("#cancel").click()
            page.locator("#words").get_by_text("Stopped between two steps").wait_for(timeout=20_000)
            assert "64×64" in page.locator("#predicted").inner_text()
            if folder := os.environ.get("CAUDAL_SCREENSHOTS"):
                page.screenshot(path=f"{folder}/generate.png", full_page=True)
            browser.close()
    finally:
        slow.set()
        page_of.close()
        desk.close()
