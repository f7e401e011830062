# Everything from a fresh clone: `make serve` serves the demo model, `make test` runs the whole suite.
# Needs Python ≥ 3.11, a C++20 compiler and make; all else goes into .venv.

PYTHON ?= python3
MODEL ?= demo
HOST ?= 127.0.0.1
PORT ?= 8000
VENV := .venv
BIN := $(VENV)/bin
NATIVE := CMakeLists.txt $(shell find native -name '*.h' -o -name '*.cpp' 2>/dev/null)
PIP := $(BIN)/pip --disable-pip-version-check install --quiet

.PHONY: serve chat test test-fast lint format stubs tables demo clean help

help: ## this page
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/'

serve: $(VENV)/installed ## serve MODEL (the demo model) on HOST:PORT
	@$(BIN)/antiphon serve $(MODEL) --host $(HOST) --port $(PORT)

chat: $(VENV)/installed ## chat with MODEL in the terminal
	@$(BIN)/antiphon chat $(MODEL)

test: lint demo $(VENV)/installed-judge ## every check and every test
	$(BIN)/python -m pytest

test-fast: $(VENV)/installed-dev ## the tests that take seconds
	$(BIN)/python -m pytest tests/unit tests/http tests/engine tests/offline -m "not model and not slow"

lint: $(VENV)/installed-dev ## style, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/clang-format --dry-run --Werror $(filter %.h %.cpp,$(NATIVE))

format: $(VENV)/installed-dev ## put code into the house style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/clang-format -i $(filter %.h %.cpp,$(NATIVE))

stubs: $(VENV)/installed-dev ## write the native module's types anew
	$(BIN)/python -m nanobind.stubgen --module antiphon._native --output-file src/antiphon/_native.pyi

tables: $(VENV)/installed-dev ## write the table of OpenAI's fields in docs/api.md anew
	$(BIN)/python tests/helpers/compatibility.py

demo: $(VENV)/installed ## bring the demo model
	@$(BIN)/python -m antiphon.demo

clean: ## remove what was built and installed
	rm -rf $(VENV) build dist

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'Antiphon needs Python 3.11 or later: make PYTHON=python3.12'; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml $(NATIVE) | $(VENV)/bin/python
	@echo 'Installing Antiphon and compiling its kernels into $(VENV) (a minute or two, once) …'
	$(PIP) --editable .
	@touch $@

$(VENV)/installed-dev: pyproject.toml constraints.txt $(VENV)/installed
	@echo 'Installing what the tests need …'
	$(PIP) --constraint constraints.txt --editable '.[dev]'
	@touch $@

# PyTorch and transformers, which judge how faithful the arithmetic is.
$(VENV)/installed-judge: constraints.txt $(VENV)/installed-dev
	@echo 'Installing the float32 judge …'
	$(PIP) --constraint constraints.txt --editable '.[dev,fidelity]'
	@touch $@
