# Two commands: `make train` and `make test`. Both need Python 3.11+, pip and make, nothing else.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: train test lint bench clean

train: $(VENV)/installed            ## train the recipe `fast`; more flags: make train ARGS="tutorial --seed 1"
	$(BIN)/hundredfold train $(ARGS)

test: lint                          ## lint, type check, unit tests with coverage
	$(BIN)/python -m pytest --cov --cov-report=term --cov-fail-under=90

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/installed-dev          ## measure `fast` and `fast --labels coarse`, five seeds each: an hour
	$(BIN)/python benchmarks/bench.py

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "hundredfold needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 2; }

$(VENV)/installed: pyproject.toml | $(BIN)/python
	@echo "Installing hundredfold and PyTorch into $(VENV): some minutes, once."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/installed-dev: pyproject.toml | $(BIN)/python
	@echo "Installing hundredfold, PyTorch and the test tools into $(VENV): some minutes, once."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/installed

clean:                              ## remove the virtual environment and caches; runs/ stays
	rm -rf $(VENV) build dist .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis
