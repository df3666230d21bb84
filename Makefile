# `make install` makes .venv in this folder; every other target begins with it.
# Commands go through `python -m`: they work whatever the folder is called.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv/bin/python
STAMP := .venv/.installed

.PHONY: help install demo test test-slow check clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' Makefile

install: $(STAMP)  ## make .venv with everything that use, development and tests need

$(STAMP): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "edgenas needs Python 3.11 or newer; name one with: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(VENV) -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv .venv
	@echo "installing into .venv; the first time takes about a minute"
	@$(VENV) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	@touch $(STAMP)

demo: install  ## train, profile, search, choose and export on this machine, in runs/demo
	@$(VENV) -m edgenas demo --run runs/demo

test: install  ## the tests that take seconds
	@$(VENV) -m pytest -m "not slow"

test-slow: install  ## the tests that take minutes
	@$(VENV) -m pytest -m slow

check: install  ## lint, format and types, changing nothing
	@$(VENV) -m ruff check .
	@$(VENV) -m ruff format --check .
	@$(VENV) -m mypy

clean:  ## remove .venv and what tools have left; runs/ stays
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
