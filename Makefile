# Two commands for a newcomer: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test deployment-test faults-test lint types proto environment clean

demo: environment
	$(BIN)/tutela data get ml-100k
	$(BIN)/tutela simulate --config simulations/configs/demo.toml --out runs/demo --overwrite

test: environment
	$(BIN)/python -m pytest -n 2 -m "not slow"
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "slow and not processes and not faults"
	$(BIN)/python -m pytest -m processes

# A federation of real processes on this machine: init to down, with kills between.
deployment-test: environment
	$(BIN)/python -m pytest -m slow tests/simulations/deployment/test_end_to_end.py

# Kills, lies, clocks, cables: docs/reliability.md.
faults-test: environment
	$(BIN)/python -m pytest -m faults

lint: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: environment
	$(BIN)/mypy

# The code is committed: a device needs no compiler.
proto: environment
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. client/proto/recommender.proto

environment: .venv/installed

# An interrupted installation leaves no marker, and is begun again.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else "Expected Python 3.11 to 3.13, got %d.%d; name another with PYTHON=..." % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[simulation,dev]'
	touch $@

clean:
	rm -rf .venv runs
