# The four verbs of this house. Each makes the virtual environment first if it is missing or out of date.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: demo test check bench clean

# the main job on generated scenes: plan, train, predict, report, in demo/
demo: $(STAMP)
	$(BIN)/caudal demo

# every test
test: $(STAMP)
	$(BIN)/python -m pytest

# style, types, floors
check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# peers side by side; writes benchmarks/RESULTS.md
bench: $(STAMP)
	$(BIN)/python -m benchmarks

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) demo
