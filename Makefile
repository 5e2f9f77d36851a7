# Two commands for a newcomer: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint types environment clean

demo: environment
	$(BIN)/tutela data get ml-100k
	$(BIN)/tutela simulate --config simulations/configs/demo.toml --out runs/demo --overwrite

test: environment
	$(BIN)/python -m pytest -n 2 -m "not slow"
	$(BIN)/python -m pytest -m slow

lint: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: environment
	$(BIN)/mypy

environment: .venv/installed

# An interrupted installation leaves no marker, and is begun again.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else "Expected Python 3.11 to 3.13, got %d.%d; name another with PYTHON=..." % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[simulation,dev]'
	touch $@

clean:
	rm -rf .venv runs
