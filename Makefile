# mrbook. Every target makes its own virtual environment first: python3 and make are enough.
#   make test        prove it          make reproduce   regenerate every table and figure
PYTHON  ?= python3
VENV    ?= .venv
PRESET  ?= quick
STUDY   ?=
ARGS    ?=
BIN     := $(VENV)/bin
READY   := $(VENV)/.ready
BENCHED := $(VENV)/.ready-bench
PIP     := $(BIN)/python -m pip install -qq --progress-bar off --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help test reproduce lab bench clean

help: ## this list
	@grep -E '^[a-z]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | awk -F '\t' '{printf "  make %-10s %s\n", $$1, $$2}'

# PyTorch goes first and alone: where an index offers a CPU build, nothing that comes later can pull in another one.
$(READY): constraints.txt settings.ini setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "mrbook needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "setting up $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --upgrade 'pip>=24' || echo "pip is old, and there is no newer one here: going on, slowly"
	@$(PIP) torch
	@$(PIP) -e '.[dev,lab,studies]'
	@touch $@

$(BENCHED): $(READY)
	@$(PIP) -e '.[dev,lab,studies,bench]'
	@touch $@

test: $(READY) ## notebooks clean and in sync, every notebook's inline tests, tests/
	@$(BIN)/python tests/run_all.py $(ARGS)

reproduce: $(READY) ## run the studies: PRESET=quick|full STUDY="dact_table1 ..." ARGS="--device cuda"
	@$(BIN)/mrbook reproduce $(STUDY) --preset $(PRESET) $(ARGS)

lab: $(READY) ## JupyterLab on the walkthroughs
	@$(BIN)/jupyter lab nbs/walkthroughs $(ARGS)

bench: $(BENCHED) ## our code beside other libraries on the same work
	@$(BIN)/python -m pytest benchmarks -q -p no:cacheprovider $(ARGS)

clean: ## build products and caches; keeps .venv, runs, results and data
	@rm -rf build dist _docs _proc *.egg-info .pytest_cache .hypothesis .benchmarks .cache
	@find mrbook nbs tests benchmarks -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf
