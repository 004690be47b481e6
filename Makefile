# The four verbs of this house. Each makes the virtual environment first if it is missing or out of date.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: demo test check bench messages clean

# the main job on generated scenes: plan, train, predict, report, in demo/
demo: $(STAMP)
	$(BIN)/caudal demo

# every test but the slowest, on two processes; the many programs that they start compile this house once, not each for itself
test: $(STAMP)
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -n 2 --dist worksteal

# style, types, floors
check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# the slowest tests, then peers side by side; writes benchmarks/RESULTS.md
bench: $(STAMP)
	$(BIN)/python -m pytest -m slow
	$(BIN)/python -m benchmarks

# what people read: find new sentences, and compile the translations
messages: $(STAMP)
	mkdir -p build
	$(BIN)/pybabel extract -F babel.cfg -k _ --add-location=file -o build/caudal.pot src
	$(BIN)/pybabel update -D caudal -i build/caudal.pot -d src/caudal/core/locale -N -w 110 --ignore-obsolete
	$(BIN)/pybabel compile -D caudal -d src/caudal/core/locale --statistics

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) demo
