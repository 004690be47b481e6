"""Spanish messages: all there, with the same facts in them, and compiled as they are written."""

from __future__ import annotations

import ast
import json
import os
import string
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from babel.messages import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.frontend import parse_mapping_cfg
from babel.messages.mofile import read_mo
from babel.messages.pofile import read_po

from caudal.core import messages
from caudal.core.errors import UsageError
from caudal.core.messages import LOCALE_DIR
from caudal.core.units import Bytes

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
FOLDER = LOCALE_DIR / "es" / "LC_MESSAGES"
COMPUTED = LOCALE_DIR / "computed.txt"
# Where `_` gets a name that is known at run time alone; its strings stand in `computed.txt`.
COMPUTED_IN = {"caudal/memory/cost.py"}


@cache
def catalogue() -> Catalog:
    with (FOLDER / "caudal.po").open("rb") as file:
        return read_po(file)


@cache
def extracted() -> dict[str, set[str]]:
    """Every string that `make messages` finds, and the files that hold it."""
    with (ROOT / "babel.cfg").open(encoding="utf-8") as file:
        methods, options = parse_mapping_cfg(file)
    found: dict[str, set[str]] = {}
    for name, _line, text, _comments, _context in extract_from_dir(SOURCE, methods, options):
        assert isinstance(text, str), f"{name}: plural forms are not used here"
        found.setdefault(text, set()).add(name)
    return found


def calls() -> Iterator[tuple[str, ast.expr]]:
    """Every call of `_` in the source, in f-strings too: the file, and what is translated."""
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_":
                yield path.relative_to(SOURCE).as_posix(), node.args[0]


def translations() -> list[tuple[str, str]]:
    return [(str(message.id), str(message.string)) for message in catalogue() if message.id]


def test_every_string_of_the_source_is_in_the_catalogue_and_no_other() -> None:
    assert set(extracted()) == {english for english, _spanish in translations()}
    assert not catalogue().obsolete


def test_every_call_in_the_source_is_seen_by_the_extractor() -> None:
    literal = {node.value for _file, node in calls() if isinstance(node, ast.Constant)}
    assert literal <= set(extracted())
    assert {file for file, node in calls() if not isinstance(node, ast.Constant)} <= COMPUTED_IN


def test_the_list_of_unseen_strings_holds_no_more_than_it_must() -> None:
    by_hand = {
        text for text, files in extracted().items() if files == {COMPUTED.relative_to(SOURCE).as_posix()}
    }
    listed = {
        text for text, files in extracted().items() if any(name.endswith("computed.txt") for name in files)
    }
    assert listed == by_hand, "take these out of computed.txt: the extractor sees them now"
    constants = {
        node.value
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert listed <= constants, "take these out of computed.txt: the source does not hold them any more"


def test_every_string_is_translated() -> None:
    assert [message.id for message in catalogue() if message.id and not message.string] == []
    assert [message.id for message in catalogue() if message.id and message.fuzzy] == []


def facts(text: str) -> list[tuple[str, str, str]]:
    """Placeholders of a string: name, format, conversion."""
    fields = [(name, form, turn) for _text, name, form, turn in string.Formatter().parse(text)]
    return sorted((name, form or "", turn or "") for name, form, turn in fields if name is not None)


def test_a_translation_holds_the_same_facts_commands_and_edges() -> None:
    for english, spanish in translations():
        assert facts(spanish) == facts(english)
        for mark in ("`", "--", "\n"):
            assert spanish.count(mark) == english.count(mark), english
        assert (spanish[:1] == " ", spanish[-1:] == " ") == (english[:1] == " ", english[-1:] == " "), english
        assert (spanish[-1] in ".:?") == (english[-1] in ".:?"), english


def test_the_compiled_catalogue_says_what_the_written_one_says() -> None:
    with (FOLDER / "caudal.mo").open("rb") as file:
        compiled = {message.id: message.string for message in read_mo(file) if message.id}
    assert compiled == dict(translations()), "run make messages"


def test_the_header_is_that_of_spanish() -> None:
    assert str(catalogue().locale) == "es"
    assert catalogue().plural_expr == "(n != 1)"
    assert catalogue().charset == "utf-8"


@pytest.mark.parametrize(
    ("values", "language"),
    [
        ({"CAUDAL_LANG": "es"}, "es"),
        ({"CAUDAL_LANG": "es_CO.UTF-8", "LANG": "de_DE.UTF-8"}, "es"),
        ({"LANG": "es_ES.UTF-8"}, "es"),
        ({"LC_ALL": "C", "LANG": "es_ES.UTF-8"}, "en"),
        ({}, "en"),
    ],
)
def test_the_language_comes_from_the_environment(
    values: dict[str, str], language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CAUDAL_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    assert messages.language() == language
    assert messages._("speed") == {"es": "velocidad", "en": "speed"}[language]


def test_a_language_without_a_catalogue_reads_english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAUDAL_LANG", "eo")
    assert messages._("speed") == "speed"


def test_an_error_in_spanish_has_its_facts_and_the_same_code(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from caudal.cli.main import main; main()"]
    done = subprocess.run(
        [*command, "report", str(tmp_path / "nada"), "--json"],
        env={**os.environ, "CAUDAL_LANG": "es"},
        capture_output=True,
        text=True,
    )
    error = json.loads(done.stdout)["error"]
    assert done.returncode == 2
    assert error["code"] == "usage"
    assert error["message"] == f"{tmp_path / 'nada'} no es una ejecución."
    assert "Da la carpeta que escribió `caudal train -o`." in done.stderr


def test_a_size_that_is_none_is_refused_in_spanish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAUDAL_LANG", "es")
    with pytest.raises(UsageError, match=r"«mucho» no es un tamaño\. Escríbelo así: 4GiB"):
        Bytes.parse("mucho")
