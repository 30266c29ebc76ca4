# Every target sets up what it needs in .venv; a machine with make and Python 3.11 or newer is enough.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --durations=20
BASE ?=
HEAD ?=
ARGS ?=
LOWEST := .venv-lowest
EXTRAS := monai,smp,pretrained,tensorboard,export,instruments,mat73,sweep,slurm,remote
# What calls each dependency in many ways, without the tools of developers.
OLDEST := tests/smoke/test_demo.py tests/smoke/test_loggers.py tests/cohort/test_stored_cohort.py tests/cohort/test_store.py \
	tests/sources/test_readers.py tests/sources/test_picture_files.py tests/inference/test_prediction.py tests/exports \
	tests/contract/test_models.py tests/plots tests/config/test_verbs.py tests/config/test_hints.py tests/studies/test_search.py
export PYTHONUNBUFFERED := 1

.PHONY: help setup demo test test-slow test-soak test-lowest lint bench same-numbers docs
.DEFAULT_GOAL := help

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

setup: $(READY)  ## set up .venv with everything for use and development

demo: $(READY)  ## make the phantom cohort, train on its sample labels, evaluate against its truth, write a report
	$(BIN)/python -m compseg.train

test: $(READY)  ## run the everyday tests
	$(PYTEST) -m "not slow"

test-slow: $(READY)  ## run the slow tests: several processes, kills, whole sweeps
	$(PYTEST) -m "slow and not soak"

test-soak: $(READY)  ## run what takes many minutes: random damage and kills, the commands of all pages
	$(PYTEST) -m soak

test-lowest: $(LOWEST)/.ready  ## run some tests with the oldest versions that pyproject.toml allows; downloads 4 GB, once
	PYTHONPATH=src OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -m "not slow" $(OLDEST)

lint: $(READY)  ## check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)  ## measure speed and accuracy
	$(BIN)/python benchmarks/run.py

same-numbers: $(READY)  ## prove that nothing changes a number: BASE=COMMIT, and HEAD=COMMIT in place of the working tree
	@test -n "$(BASE)" || { echo "make same-numbers: against which commit? give BASE=COMMIT" >&2; exit 2; }
	$(BIN)/python benchmarks/same_numbers.py $(BASE) $(if $(HEAD),--head $(HEAD)) $(ARGS)

docs: $(READY)  ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("compseg needs Python 3.11 or newer, this is %s; make PYTHON=/path/to/python3.11" % sys.version.split()[0])'
	@echo "Setting up .venv (some minutes, once)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(LOWEST)/.ready: pyproject.toml
	@$(PYTHON) -m venv $(LOWEST)
	@$(LOWEST)/bin/pip install --quiet --disable-pip-version-check 'uv>=0.5'
	@$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct -e '.[$(EXTRAS)]' 'pytest>=8.2' 'hypothesis>=6.100'
	@touch $@
