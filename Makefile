# `make demo` and `make test` need nothing but Python 3.11 or later with venv; they install the rest into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help install demo test test-slow docs lint clean

help:  ## Show the targets.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

# torch in a step of its own, so that no other package drags in another build of it
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --editable '.[dev]'
	touch $@

install: $(VENV)/.installed  ## Install cetpick into .venv.

demo: install  ## Simulate, train, pick, evaluate: the main job end to end, into ./demo.
	$(BIN)/cetpick demo --output demo --overwrite

lint: $(VENV)/.installed-dev  ## Style, types, layers, shell scripts, Dockerfile.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile
	$(BIN)/shellcheck wrappers/mounts.sh wrappers/endings.sh wrappers/docker/cetpick wrappers/apptainer/cetpick wrappers/slurm/* tests/slow/*.sh

# a process a core, each with one thread; in the order of the alphabet the longest files are not the last
test: lint  ## All quick tests, with a CPU alone in minutes.
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

test-slow: $(VENV)/.installed-dev  ## Tests with RELION, Slurm, podman, Chromium, of Debian's archive (as root), and Scipion, of PyPI.
	PYTHON=$(PYTHON) tests/slow/install.sh
	$(BIN)/pytest -m slow

docs: $(VENV)/.installed-dev  ## The documentation as a site, ./site/index.html; a dead link is an error.
	$(BIN)/python docs/cli.py
	$(BIN)/sphinx-build --quiet --fail-on-warning --nitpicky --conf-dir docs . site

clean:  ## Remove what the targets made.
	rm -rf $(VENV) .venv-scipion demo site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
