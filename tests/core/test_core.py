"""Laws of the small stones: registry, events, seeds, configuration, files, messages."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest

from caudal.core import events, messages
from caudal.core.config import Frozen
from caudal.core.errors import CaudalError, DiskFull, UsageError
from caudal.core.events import JsonLines, Warned
from caudal.core.files import write_whole
from caudal.core.registry import Registry
from caudal.core.seeds import generator, integer


class Example(Frozen):
    number: int = 1
    name: str | None = None


def test_a_record_survives_toml(tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    path.write_text(Example(number=3).to_toml())
    assert Example.from_toml(path) == Example(number=3)


@pytest.mark.parametrize("text", ["nmuber = 1", "number = 'x'", "number = ", "\x00"])
def test_a_wrong_spec_is_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "spec.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        Example.from_toml(path)
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_a_registry_imports_nothing_until_asked() -> None:
    table = Registry("thing", "caudal.none", {"a": "no_such_module:thing"})
    assert table.names() == ["a"]
    with pytest.raises(ModuleNotFoundError):
        table.get("a")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="a, b"):
        Registry("thing", "caudal.none", {"b": "x:y", "a": "x:y"}).get("c")


def test_events_survive_a_file_whose_last_line_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = events.JsonLines(path)
    log(events.Warned("año"))
    log(events.TileDone(1, 2))
    log.close()
    with path.open("a") as file:
        file.write('{"kind": "tile_do')
    log = events.JsonLines(path)
    log(events.TileDone(2, 2))
    log.close()
    kinds = [event.kind for event in events.read(path)]
    assert kinds == ["warned", "tile_done", "tile_done"]
    assert json.loads(path.read_text().splitlines()[0])["message"] == "año"


def test_every_kind_of_event_can_be_read_back() -> None:
    found = {cls.kind for cls in events.Event.__subclasses__()}
    assert found == set(events.KINDS)


def test_a_stream_of_numbers_depends_on_its_name_and_keys_alone() -> None:
    one = generator(7, "augment", 3, 4).random(5)
    generator(7, "other").random(100)
    assert np.array_equal(one, generator(7, "augment", 3, 4).random(5))
    assert not np.array_equal(one, generator(7, "augment", 4, 3).random(5))
    assert 0 <= integer(7, "weights") < 2**63


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "model"
    write_whole(path, lambda part: part.write_text("old"))

    def full(part: Path) -> None:
        part.write_text("ne")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DiskFull) as caught:
        write_whole(path, full)
    assert caught.value.hint
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_the_language_is_asked_for_before_it_is_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANG", "en_GB.UTF-8")
    monkeypatch.setenv("CAUDAL_LANG", "es")
    assert messages.language() == "es"
    monkeypatch.delenv("CAUDAL_LANG")
    monkeypatch.delenv("LC_ALL", raising=False)
    monkeypatch.delenv("LC_MESSAGES", raising=False)
    assert messages.language() == "en"


def test_every_error_has_a_code_of_its_own() -> None:
    def tree(cls: type[CaudalError]) -> list[type[CaudalError]]:
        return [cls, *(leaf for child in cls.__subclasses__() for leaf in tree(child))]

    codes = [cls.code for cls in tree(CaudalError)]
    assert len(set(codes)) == len(codes)


def test_of_many_words_on_how_far_it_is_few_are_passed_on_and_the_last_always() -> None:
    heard: list[events.Event] = []
    now = 0
    paced = events.Paced(heard.append, 25, lambda: now)
    for now in range(1, 101):
        paced(events.TileDone(now, 100))
    paced(events.Warned("not left out"))
    assert [event.done for event in heard if isinstance(event, events.TileDone)] == [1, 26, 51, 76, 100]
    paced(events.PartDone(1, 1))
    assert [event.kind for event in heard[-2:]] == ["warned", "part_done"]


def test_an_event_for_which_the_disk_has_no_room_is_a_full_disk(small_disk: Path) -> None:
    log = JsonLines(small_disk / "events.jsonl")

    def fill() -> None:
        for _number in range(400):
            log(Warned("a" * 10_000))

    with pytest.raises(DiskFull, match="No space"):
        fill()
    log.close()
