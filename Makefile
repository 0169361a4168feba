# Splat's everyday jobs. Each sets up everything it needs first: see scripts/setup.sh.
#
#   make demo    set up, then make the sample scene, train it, score it and export it
#   make test    set up, then lint, check types and layers, and run the tests
#   make fuzz    the reader tests on 10,000 damaged inputs each (slow)
#   make bench   the benchmarks: tables on the screen, JSON in benchmarks/results
#   make clean   remove what the above made; the datasets and runs stay
#
# PYTHON=python3.12 picks an interpreter (3.10 or later) for the environment in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# What, when changed, needs the native module or the package's list of files made again.
NATIVE := $(shell find cuda -type f -not -path '*/build/*')
PACKAGES := $(shell find splat data viewer configs -name __init__.py)

.DELETE_ON_ERROR:
.PHONY: demo test lint fuzz bench clean help

demo: $(STAMP)
	$(BIN)/splat demo

test: lint
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python scripts/lint.py

fuzz: $(STAMP)
	$(BIN)/python -m pytest -m fuzz --hypothesis-profile=fuzz --timeout=0

bench: $(STAMP)
	$(BIN)/python benchmarks/raster.py
	$(BIN)/python benchmarks/train.py
	$(BIN)/python benchmarks/viewer.py

$(STAMP): pyproject.toml examples/ges/pyproject.toml constraints.txt scripts/setup.sh $(NATIVE) $(PACKAGES)
	@PYTHON="$(PYTHON)" bash scripts/setup.sh $(VENV)
	@touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:
	@sed -n '3,9s/^# \{0,1\}//p' Makefile
