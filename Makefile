# Two commands: `make train` and `make test`. Both need Python 3.11+, pip and make, nothing else.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# `make LOCKED=1 train` installs the versions of requirements.lock, to the digit.
PINNED := $(if $(LOCKED),-c requirements.lock)
# What pip has done: pinned or not.
INSTALLED     := $(VENV)/installed$(if $(LOCKED),-locked)
INSTALLED_DEV := $(VENV)/installed-dev$(if $(LOCKED),-locked)
# What the installation compiles.
NATIVE        := hatch_build.py $(wildcard src/hundredfold/native/*.cpp src/hundredfold/native/*.h)
COVERAGE      := build/coverage.json

.PHONY: train test lint bench docs faults lock vulnerabilities clean

train: $(INSTALLED)                 ## train the recipe `fast`; more flags: make train ARGS="tutorial --seed 1"
	$(BIN)/hundredfold train $(ARGS)

test: lint                          ## lint, type check, unit tests with coverage
	@mkdir -p build
	$(BIN)/python -m slipcover --source src/hundredfold --json --out $(COVERAGE) \
	  -m pytest --numprocesses auto --dist worksteal
	@$(BIN)/python -m slipcover --merge $(COVERAGE) --out $(COVERAGE) --skip-covered --fail-under 90

lint: $(INSTALLED_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --num-workers auto

bench: $(INSTALLED_DEV)          ## measure `fast` and `fast --labels coarse`, five seeds each: half an hour
	$(BIN)/python benchmarks/bench.py

docs: $(INSTALLED_DEV)            ## build the site, build/site/index.html; any broken link is an error
	$(BIN)/mkdocs build --quiet

faults: $(INSTALLED_DEV)         ## 200 kills, 20 full disks, 5,568 damaged runs, 12,000 malformed files: half an hour
	PYTHONPATH=tests $(BIN)/python -m campaigns.faults --kills 200 --disks 20
	PYTHONPATH=tests $(BIN)/python -m campaigns.damage --bits 50
	PYTHONPATH=tests $(BIN)/python -m campaigns.fuzz --inputs 1000

lock: $(INSTALLED_DEV)           ## write the versions that are installed to requirements.lock
	$(BIN)/python -m pip freeze --exclude-editable | sort -f > requirements.lock

vulnerabilities:                    ## ask the advisories about every version of requirements.lock
	$(PYTHON) -m venv build/pip-audit
	build/pip-audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	build/pip-audit/bin/pip-audit --strict --no-deps --disable-pip -r requirements.lock

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "hundredfold needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 2; }

$(INSTALLED): pyproject.toml $(NATIVE) | $(BIN)/python
	@echo "Installing hundredfold and PyTorch into $(VENV): some minutes, once."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PINNED) -e .
	@touch $@

$(INSTALLED_DEV): pyproject.toml $(NATIVE) | $(BIN)/python
	@echo "Installing hundredfold, PyTorch and the test tools into $(VENV): some minutes, once."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PINNED) -e '.[dev]'
	@touch $@ $(INSTALLED)

clean:                              ## remove the virtual environment and caches; runs/ stays
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
