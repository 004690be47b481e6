"""The page: what stands behind it works without any page library, and the page itself works in a browser."""

from __future__ import annotations

import os
import subprocess
import sys
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


def test_few_steps_set_the_controls_which_then_say_what_is_made(face: Path) -> None:
    from caudal.cli.generate_page import _few_steps

    assert _few_steps(True) == (8, 1.5, "lcm")
    assert _few_steps(False) == (Controls().steps, Controls().guidance, Controls().scheduler)
    request = controls(face, lcm=True, steps=4, guidance=1.0).wish().request
    assert (request.scheduler, request.steps, request.guidance) == ("lcm", 4, 1.0)
    with pytest.raises(UsageError, match="euler"):
        controls(face, lcm=True, scheduler="euler").wish()


def test_a_number_that_was_emptied_is_said_and_the_page_goes_on(desk: Desk, face: Path) -> None:
    for name in ("seed", "count", "steps", "guidance", "width", "identity_strength"):
        empty = controls(face, another_seed=False, **{name: None})
        assert f"“{name.replace('_', ' ')}” is empty" in desk.predicted(empty)
        ((_history, words, _seed),) = list(desk.make(empty))
        assert "is empty" in words
    (*_all, (history, _words, _seed)) = desk.make(controls(face))
    assert len(history) == 1
    assert desk.cancel() == "Nothing is being made."


def test_a_place_that_is_lost_is_said_and_the_page_goes_on(desk: Desk, face: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    desk.out, good = tmp_path / "file" / "pictures", desk.out
    ((history, words, _seed),) = list(desk.make(controls(face)))
    assert "cannot be written" in words
    assert history == []
    desk.out = good
    (*_all, (history, _words, _seed)) = desk.make(controls(face))
    assert len(history) == 1


def test_a_picture_too_small_for_the_mark_is_said_before_and_after(desk: Desk, face: Path) -> None:
    assert "no room for the invisible mark" in desk.predicted(controls(face))
    (*_all, (_history, words, _seed)) = desk.make(controls(face))
    assert "no room for the invisible mark" in words


SERVED = ("generate", "--ui", "--engine", "stand_in", "--device", "cpu")


def test_flags_given_with_the_page_are_where_its_controls_begin(
    model: Path, face: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from caudal.cli import generate_page
    from tests.generation.test_verbs import call

    opened: list[tuple[object, ...]] = []
    monkeypatch.setattr(
        generate_page,
        "serve",
        lambda model, engine, budgets, out, start: opened.append((engine, budgets, out, start)),
    )
    flags = ("--identity", face, "--prompt", "a man", "--seed", "5", "--steps", "7", "--size", "64x96")
    more = ("--precision", "bf16", "--face-region", "--ram", "2GiB", "-o", tmp_path / "here")
    assert call(*SERVED, "--model", model, *flags, *more)[0] == 0
    ((engine, budgets, out, start),) = opened
    assert (engine, budgets, out) == ("stand_in", Budgets(ram="2GiB", device="cpu"), tmp_path / "here")
    assert isinstance(start, Controls)
    wish = start.wish()
    assert wish.people == (str(face),)
    said = wish.request
    assert (said.seed, said.steps, said.width, said.height, said.precision) == (5, 7, 64, 96, "bf16")
    assert (start.another_seed, start.like_pose, start.face_region) == (False, False, True)
    call(*SERVED, "--model", model)
    assert opened[1][3] == Controls()
    code, _last, said = call(*SERVED, "--model", model, "--control-picture", f"depth={face}")
    assert (code, len(opened)) == (2, 2)
    assert "no such ControlNet" in said


@pytest.mark.parametrize("flag", ["--no-watermark", "--no-metadata", "--plan", "--json"])
def test_flags_that_the_page_cannot_honour_are_refused(model: Path, flag: str) -> None:
    from tests.generation.test_verbs import call

    code, _last, said = call(*SERVED, "--model", model, flag)
    assert code == 2
    assert f"{flag} has no place on the page" in said


SERVE = """
import socket, sys
from pathlib import Path
tried, connect = [], socket.socket.connect
def guarded(self, address):
    if self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "localhost", "::1"):
        return connect(self, address)
    tried.append(address)
    raise OSError("no network here")
socket.socket.connect = guarded
def asked(name, *more, **options):
    if name not in (None, "", "127.0.0.1", "localhost", b"127.0.0.1", b"localhost"):
        tried.append(name)
        raise OSError("no names here")
    return lookup(name, *more, **options)
lookup, socket.getaddrinfo = socket.getaddrinfo, asked
from caudal.cli.generate_desk import Controls
from caudal.cli.generate_page import serve
from caudal.core.errors import UsageError
from caudal.runs.generation.studio import Budgets, open_model
model, out = open_model(sys.argv[1]), Path(sys.argv[2])
try:
    serve(model, "stand_in", Budgets(device="cpu"), Path("/proc/caudal"), block=False)
except UsageError as error:
    print(error.message)
start = Controls(prompt="a sailor", steps=7)
served = serve(model, "stand_in", Budgets(device="cpu"), out, block=False, start=start)
import huggingface_hub.constants
from urllib.request import urlopen
page = urlopen(served[1] + "config").read().decode()
print(served[1].startswith("http://127.0.0.1:"), served[2], "a sailor" in page)
print(huggingface_hub.constants.HF_HUB_OFFLINE, tried, out.is_dir())
"""


def test_the_page_is_served_here_alone_and_asks_nobody(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "GRADIO_"))}
    done = subprocess.run(
        [sys.executable, "-c", SERVE, str(model), str(tmp_path / "out")],
        capture_output=True, text=True, env=environment, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.strip().splitlines()
    assert lines[0].startswith("Nothing can be written to /proc/caudal")
    assert lines[-2:] == ["True None True", "True [] True"]


def test_without_gradio_the_mend_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
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
