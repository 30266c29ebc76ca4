# Every target sets up what it needs in .venv; a machine with make and Python 3.11 or newer is enough.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --durations=20
BASE ?=
HEAD ?=
ARGS ?=
DOCS_READY := .venv/.docs-ready
export PYTHONUNBUFFERED := 1

.PHONY: help setup demo test test-slow test-soak lint bench same-numbers docs
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

test-soak: $(READY)  ## run what takes many minutes: random damage, kills at random moments
	$(PYTEST) -m soak

lint: $(READY)  ## check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)  ## measure speed and accuracy
	$(BIN)/python benchmarks/run.py

same-numbers: $(READY)  ## prove that nothing changes a number: BASE=COMMIT, and HEAD=COMMIT in place of the working tree
	@test -n "$(BASE)" || { echo "make same-numbers: against which commit? give BASE=COMMIT" >&2; exit 2; }
	$(BIN)/python benchmarks/same_numbers.py $(BASE) $(if $(HEAD),--head $(HEAD)) $(ARGS)

docs: $(DOCS_READY)  ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("compseg needs Python 3.11 or newer, this is %s; make PYTHON=/path/to/python3.11" % sys.version.split()[0])'
	@echo "Setting up .venv (some minutes, once)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(DOCS_READY): $(READY)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@
