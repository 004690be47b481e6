"""The house: what importing costs, how large files are, what is public."""

import ast
import subprocess
import sys
from pathlib import Path

import caudal

SOURCE = Path(caudal.__file__).parent
HEAVY = ("torch", "rasterio", "numpy", "PySide6", "fastapi", "tensorboard", "PIL", "rich", "typer")


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = f"import sys, caudal; print([m for m in sys.modules if m.split('.')[0] in {HEAVY!r}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_planning_does_not_load_torch_into_this_process() -> None:
    code = "import sys, caudal.runs.verbs.plan, caudal.cli.main; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_what_is_public_is_listed_sorted_and_there() -> None:
    assert caudal.__all__ == sorted(caudal.__all__)
    assert all(getattr(caudal, name) is not None for name in caudal.__all__)
    assert set(caudal.__all__) == set(caudal._HOMES)


def test_no_file_outgrows_its_concept() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in SOURCE.rglob("*.py")}
    assert {path: n for path, n in lengths.items() if n > 600} == {}


def test_every_file_says_first_what_it_is_for() -> None:
    silent = [
        path
        for path in SOURCE.rglob("*.py")
        if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def test_there_is_no_cupboard() -> None:
    assert [
        path for path in SOURCE.rglob("*.py") if path.stem in ("utils", "helpers", "common", "misc")
    ] == []
