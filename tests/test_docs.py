"""The documentation is true of the code: links, verbs, flags, keys, defaults, codes, events, names."""

from __future__ import annotations

import dataclasses
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from caudal.cli import exits
from caudal.cli.main import app
from caudal.core import events
from caudal.core.errors import CaudalError
from caudal.data.normalize import Normalization
from caudal.data.readers import READERS, known_suffixes
from caudal.memory.levers import LEVERS
from caudal.models import MODELS
from caudal.models.unet import UNetConfig
from caudal.models.weights import ModelCard
from caudal.runs.folder import RunFolder
from caudal.runs.result import Result
from caudal.runs.spec import RunSpec
from caudal.service import errors as service_errors
from caudal.tasks import TASKS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")])
EXAMPLES = sorted((ROOT / "examples").glob("*.toml"))
REFERENCE = DOCS / "reference"
# Pictures are made by hand from real runs; the pages name them before they are there.
PICTURES = DOCS / "pictures"

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def fences(page: Path) -> Iterator[tuple[str, str]]:
    """(language, text) of each code block."""
    for match in re.finditer(r"^```(\w*)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        yield match[1], match[2]


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def commands(page: Path) -> Iterator[str]:
    """Every `caudal …` in the code of a page."""
    for language, text in fences(page):
        if language == "sh":
            lines = [line.split("   #")[0].strip() for line in text.splitlines()]
            yield from (line for line in lines if line.startswith("caudal "))
    yield from re.findall(r"`(caudal [^`]+)`", prose(page))


def anchor(heading: str) -> str:
    """The name under which a heading can be linked to."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def tables(text: str) -> list[list[str]]:
    """The rows of every table of a text, without heads and rules."""
    rows = []
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        lines = table.strip().splitlines()
        rows += [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return rows


def sections(page: Path) -> dict[str, str]:
    """The text below each heading of the second level."""
    parts = re.split(r"^## (.*)$", page.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def plain(cell: str) -> str:
    return cell.strip("`")


# Links.


@pages
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("https://", "http://")):
            continue
        name, _, fragment = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if path.parent == PICTURES and path.suffix == ".png":
            continue
        assert path.exists(), f"{page.name} links to {target}"
        if fragment:
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            assert fragment in map(anchor, headings), f"{page.name} links to {target}"


def test_every_page_is_on_the_first_page() -> None:
    text = (DOCS / "index.md").read_text()
    missing = [p for p in DOCS.rglob("*.md") if f"({p.relative_to(DOCS)})" not in text]
    assert missing == [DOCS / "index.md"]


def test_decisions_are_short() -> None:
    lengths = {p.name: len(p.read_text().splitlines()) for p in (DOCS / "decisions").glob("*.md")}
    assert {name: n for name, n in lengths.items() if n > 40} == {}
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) <= 120


# Verbs and flags.


def verbs() -> dict[str, set[str]]:
    """The flags of each verb; `""` holds those of the command itself."""
    root: Any = typer.main.get_command(app)
    found = {"": [root], **{name: _leaves(command) for name, command in root.commands.items()}}
    flags = {
        name: {
            o
            for leaf in leaves
            for p in leaf.params
            if p.param_type_name == "option"
            for o in (*p.opts, *p.secondary_opts)
        }
        for name, leaves in found.items()
    }
    return {name: {*given, "-h", "--help"} for name, given in flags.items()}


def _leaves(command: Any) -> list[Any]:
    """A command, or all those of a group such as `caudal jobs`."""
    return list(command.commands.values()) if hasattr(command, "commands") else [command]


@pages
def test_every_verb_and_flag_that_is_named_exists(page: Path) -> None:
    known = verbs()
    for command in commands(page):
        words = shlex.split(command.replace("…", " "))[1:]
        verb = words[0] if words and not words[0].startswith("-") else ""
        assert verb in known, f"{page.name}: {command}"
        flags = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert flags <= known[verb], f"{page.name}: {command}"


@pages
def test_every_flag_in_running_text_belongs_to_some_verb(page: Path) -> None:
    if page.name == "CONTRIBUTING.md":
        return
    every = set().union(*verbs().values())
    assert set(re.findall(r"`(--[a-z0-9-]+)[^`]*`", prose(page))) <= every


def test_the_reference_has_every_verb_with_all_its_flags_and_no_other() -> None:
    everywhere = {"--json", "-h", "--help"}
    documented: dict[str, set[str]] = {}
    for heading, text in sections(REFERENCE / "verbs.md").items():
        match = re.match(r"`caudal (\w+)", heading)
        if match:
            cells = [row[0] for row in tables(text) if row[0].startswith("`-")]
            documented[match[1]] = {flag for cell in cells for flag in re.findall(r"`(-[^`]+)`", cell)}
    documented["train"] = documented["train"] | documented["plan"]  # the page says: flags as for plan
    real = {name: flags - everywhere for name, flags in verbs().items() if name}
    assert documented == real


def test_the_reference_has_every_key_of_a_result() -> None:
    rows = tables(sections(REFERENCE / "verbs.md")["Keys of the JSON object"])
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    assert documented == {*Result.model_fields, "facts", "plan", "error"}


# The spec.


def shown(value: Any) -> str:
    """A default as the reference writes it: a TOML value, or a word."""
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str):
        return f'`"{value}"`'
    return f"`{list(value) if isinstance(value, tuple) else value}`"


def nested(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    kinds = {name: field.annotation for name, field in model.model_fields.items()}
    return {name: k for name, k in kinds.items() if isinstance(k, type) and issubclass(k, BaseModel)}


def spec_models() -> dict[str, type[BaseModel]]:
    """Heading of the reference → the record that it describes."""
    found: dict[str, type[BaseModel]] = {"Top level": RunSpec, "`[model.config]` of `unet`": UNetConfig}
    return found | {f"`[{name}]`": model for name, model in nested(RunSpec).items()}


def test_the_reference_has_every_section_of_a_spec() -> None:
    assert set(sections(REFERENCE / "spec.md")) == set(spec_models())


@pytest.mark.parametrize("heading", spec_models())
def test_every_key_and_default_of_the_spec_is_in_the_reference_and_no_other(heading: str) -> None:
    model = spec_models()[heading]
    rows = {plain(row[0]): row[1] for row in tables(sections(REFERENCE / "spec.md")[heading])}
    fields = {name: field for name, field in model.model_fields.items() if name not in nested(model)}
    assert rows == {
        name: shown(field.get_default(call_default_factory=True)) for name, field in fields.items()
    }


@pytest.mark.parametrize("heading", spec_models())
def test_every_choice_of_a_key_is_in_the_reference(heading: str) -> None:
    rows = {plain(row[0]): row[2] for row in tables(sections(REFERENCE / "spec.md")[heading])}
    for name, field in spec_models()[heading].model_fields.items():
        if get_origin(field.annotation) is Literal:
            assert re.findall(r"`([^`]+)`", rows[name]) == list(get_args(field.annotation))


def test_every_default_in_the_reference_is_toml() -> None:
    for text in sections(REFERENCE / "spec.md").values():
        for row in tables(text):
            assert row[1] in ("required", "unset") or tomllib.loads(f"x = {plain(row[1])}")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_a_spec(path: Path) -> None:
    assert RunSpec.from_toml(path).task in TASKS.names()


@pages
def test_every_piece_of_toml_is_a_piece_of_a_spec(page: Path) -> None:
    for language, text in fences(page):
        if language == "toml":
            given = {"task": "segmentation", **tomllib.loads(text)}
            given["data"] = {"images": ["scenes"], **given.get("data", {})}
            RunSpec.make(given, page.name)
            UNetConfig.make(given.get("model", {}).get("config", {}), page.name)


@pages
def test_every_key_with_a_section_that_is_named_exists(page: Path) -> None:
    fields = {name: set(model.model_fields) for name, model in nested(RunSpec).items()}
    for section, key in re.findall(rf"`({'|'.join(fields)})\.(\w+)[^`/]*`", prose(page)):
        assert key in fields[section] or (section, key) in {("model", "json"), ("model", "safetensors")}


@pages
def test_python_in_the_docs_compiles(page: Path) -> None:
    for language, text in fences(page):
        if language == "python":
            compile(text, str(page), "exec")


# Errors, events, folders, names.


def every_error(kind: type[CaudalError] = CaudalError) -> Iterator[type[CaudalError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from every_error(below)


def test_every_error_with_its_exit_code_is_in_the_reference_and_no_other() -> None:
    rows = tables(sections(REFERENCE / "errors-and-exit-codes.md")["Errors"])
    documented = {(plain(row[0]), plain(row[1]), int(row[2])) for row in rows}
    assert service_errors.NotFound in every_error()  # those of every room are loaded
    ours = [kind for kind in every_error() if kind.__module__.startswith("caudal.")]
    assert documented == {(k.code, k.__name__, exits.exit_code(k.__new__(k))) for k in ours}


@pytest.mark.parametrize("page", [ROOT / "README.md", REFERENCE / "errors-and-exit-codes.md"])
def test_every_exit_code_is_in_the_reference_and_in_the_readme(page: Path) -> None:
    codes = {value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)}
    rows = re.search(r"\| exit code \| meaning \|\n(?:\|.*\n)+", page.read_text())
    assert rows is not None
    assert {int(row[0]) for row in tables(rows[0])} == codes


def test_every_event_with_its_fields_is_in_the_reference_and_no_other() -> None:
    documented = {
        plain(heading): [plain(row[0]) for row in tables(text)]
        for heading, text in sections(REFERENCE / "events.md").items()
    }
    real = {
        kind: [field.name for field in dataclasses.fields(event) if field.name != "time"]
        for kind, event in events.KINDS.items()
    }
    assert documented == real


def test_every_name_in_a_run_folder_is_in_the_reference_and_no_other(tmp_path: Path) -> None:
    rows = tables((REFERENCE / "run-folder.md").read_text())
    documented = {plain(row[0]).rstrip("/") for row in rows} - {".lock"}
    paths = [path for name, path in vars(RunFolder(tmp_path)).items() if name != "path"]
    assert documented == {path.name for path in paths}


def test_every_key_of_a_model_card_is_in_the_reference_and_no_other() -> None:
    parts = sections(REFERENCE / "model-folder.md")
    for heading, model in (("`model.json`", ModelCard), ("`normalization`", Normalization)):
        assert [plain(row[0]) for row in tables(parts[heading])] == list(model.model_fields)


def test_every_suffix_and_every_registered_name_is_in_the_docs() -> None:
    formats = sections(DOCS / "how-to" / "own-data.md")["Formats"]
    assert sorted(re.findall(r"`(\.\w+)`", formats)) == known_suffixes()
    spec = (REFERENCE / "spec.md").read_text()
    assert all(f"`{name}`" in spec for name in (*TASKS.names(), *MODELS.names()))
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    assert all(registry.group in guide for registry in (TASKS, MODELS, READERS, LEVERS))
