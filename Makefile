# From a fresh clone: `make serve` serves the demo model, `make test` runs the whole suite.
# Needs Python 3.11 or later, a C++20 compiler and make. Everything else is installed into .venv.

PYTHON ?= python3
MODEL ?= demo
HOST ?= 127.0.0.1
PORT ?= 8000
# Files of tests run side by side, three more than there are cores: most of the time they wait for servers and clocks.
TEST_PROCESSES ?= $(shell expr $$(nproc) + 3)
# What builds the image: podman, docker or buildah; and further options for it.
BUILDER ?= $(firstword $(foreach program,podman docker buildah,$(if $(shell command -v $(program)),$(program))))
IMAGE ?= antiphon
IMAGE_OPTIONS ?=
CUDA_IMAGE ?= docker.io/nvidia/cuda:13.0.2-base-ubuntu24.04
VENV := .venv
BIN := $(VENV)/bin
NATIVE := CMakeLists.txt $(shell find native -name '*.h' -o -name '*.cpp' 2>/dev/null)
PIP := $(BIN)/pip --disable-pip-version-check install --quiet

.PHONY: serve chat test test-fast search clients wheel lint format stubs tables page page-tools screenshots docs docs-serve demo image image-gpu image-tests kubernetes kubernetes-rules clean help

help: ## show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/'

serve: $(VENV)/installed ## serve MODEL (the demo model) on HOST:PORT
	@$(BIN)/antiphon serve $(MODEL) --host $(HOST) --port $(PORT)

chat: $(VENV)/installed ## chat with MODEL in the terminal
	@$(BIN)/antiphon chat $(MODEL)

# Where there is Node, the tests build the page again and compare.
test: lint docs demo $(VENV)/installed-judge $(if $(shell command -v npm),page-tools) ## run every check and every test
	# One seed for hashes: every process must find the same tests, and some names are made from sets.
	# No MAKEFLAGS: tests run make and cmake themselves, which are not part of a `make --jobs`.
	# Compiled Python is kept, wherever that is switched off: else each of the hundreds of servers that tests start
	# compiles all modules.
	MAKEFLAGS= PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

test-fast: $(VENV)/installed-dev ## run the fast tests
	$(BIN)/python -m pytest tests/unit tests/http tests/engine tests/offline -m "not model and not slow"

search: $(VENV)/installed-judge ## run the property tests with random examples, ten times as many as `make test`
	PYTHONHASHSEED=0 $(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --hypothesis-profile search -m "hypothesis and not model"

clients: demo $(VENV)/installed-judge ## install other people's clients (0.7 GB) and test them against the server
	@echo 'Installing the clients into build/clients and tests/e2e/clients/node_modules …'
	[ -x build/clients/bin/python ] || $(PYTHON) -m venv build/clients
	build/clients/bin/pip --disable-pip-version-check install --quiet --requirement tests/e2e/clients/requirements.txt
	! command -v npm >/dev/null || npm install --prefix tests/e2e/clients --no-package-lock --no-audit --no-fund --silent
	$(BIN)/python -m pytest tests/e2e/clients

wheel: $(VENV)/installed-dev ## build dist/*.whl for this Python, tagged manylinux
	$(BIN)/python -m build --wheel --outdir dist/raw
	PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/auditwheel repair --wheel-dir dist dist/raw/*.whl
	rm -r dist/raw

lint: $(VENV)/installed-dev ## check style, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/clang-format --dry-run --Werror $(filter %.h %.cpp,$(NATIVE))

format: $(VENV)/installed-dev ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/clang-format -i $(filter %.h %.cpp,$(NATIVE))

stubs: $(VENV)/installed-dev ## regenerate the native module's types
	$(BIN)/python -m nanobind.stubgen --module antiphon._native --output-file src/antiphon/_native.pyi

tables: $(VENV)/installed-dev ## regenerate the table of OpenAI's fields in docs/api.md
	$(BIN)/python tests/helpers/compatibility.py

# Only who changes the page needs Node: its built files are committed.
page: page-tools ## build the chat page (needs Node 20.19 or later)
	cd web && npx vite build

page-tools: web/node_modules/installed

web/node_modules/installed: web/package.json web/package-lock.json
	@echo 'Installing what builds the page …'
	cd web && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

screenshots: demo $(VENV)/installed-dev ## photograph the chat page, with the demo model, into build/screenshots
	PYTHONPATH=tests/helpers:tests/page/helpers $(BIN)/python tests/page/screenshots.py build/screenshots

docs: $(VENV)/installed-dev ## build the documentation as a site, into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

docs-serve: $(VENV)/installed-dev ## show the documentation at 127.0.0.1:8001 while you write it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve --dev-addr 127.0.0.1:8001

demo: $(VENV)/installed ## download the demo model
	@$(BIN)/python -m antiphon.demo

image: ## build the container image IMAGE with podman, docker or buildah
	$(BUILDER) build $(if $(filter docker,$(BUILDER)),,--format docker) --file Containerfile --tag $(IMAGE) \
		--build-arg VERSION=$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' src/antiphon/__init__.py) \
		--build-arg REVISION=$$(git rev-parse HEAD) $(IMAGE_OPTIONS) .

image-gpu: ## build the container image IMAGE-gpu, for NVIDIA GPUs, on CUDA_IMAGE
	$(MAKE) image IMAGE=$(IMAGE)-gpu \
		IMAGE_OPTIONS="--build-arg BASE=$(CUDA_IMAGE) --build-arg EXTRAS=gpu $(IMAGE_OPTIONS)"

image-tests: demo $(VENV)/installed-dev ## build and run the container image, without a daemon or a registry (needs root)
	ANTIPHON_IMAGE_TESTS=1 $(BIN)/python -m pytest tests/images

kubernetes: $(VENV)/installed-dev ## render the overlays of deploy/kubernetes into build/kubernetes
	mkdir -p build/kubernetes
	for overlay in deploy/kubernetes/overlays/*; do \
		$(BIN)/kubectl kustomize $$overlay > build/kubernetes/$${overlay##*/}.yaml || exit 1; done

kubernetes-rules: $(VENV)/installed ## write the alerts for Kubernetes again, after a change of the alerts
	$(BIN)/python deploy/kubernetes/prometheus_rule.py

clean: ## remove everything that was built or installed
	rm -rf $(VENV) build dist tests/e2e/clients/node_modules web/node_modules

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'Antiphon needs Python 3.11 or later: make PYTHON=python3.12'; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml $(NATIVE) | $(VENV)/bin/python
	@echo 'Installing Antiphon and compiling its kernels into $(VENV) (one or two minutes, once) …'
	$(BUILD_TOOLS) > $(VENV)/build.txt
	$(PIP) --constraint constraints.txt --requirement $(VENV)/build.txt
	$(PIP) --no-build-isolation --editable .
	@touch $@

# What compiles the kernels stays in the environment: with tools in another place, every build compiles all of them again.
BUILD_TOOLS = $(BIN)/python -c 'import tomllib; \
	print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], "cmake", "ninja", sep="\n")'

# Only the packages of an extra: installing Antiphon itself again would compile the kernels again. Python compiles the
# modules that are imported; compiling all of them takes longer than everything else.
PIP_EXTRA := $(PIP) --no-compile --constraint constraints.txt
EXTRA = $(BIN)/python -c 'import sys, tomllib; \
	print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"][sys.argv[1]], sep="\n")'

$(VENV)/installed-dev: pyproject.toml constraints.txt $(VENV)/installed
	@echo 'Installing what the tests need …'
	$(EXTRA) dev > $(VENV)/dev.txt
	$(PIP_EXTRA) --requirement $(VENV)/dev.txt
	@touch $@

# PyTorch and transformers, to compare the arithmetic with.
$(VENV)/installed-judge: constraints.txt $(VENV)/installed-dev
	@echo 'Installing PyTorch and transformers …'
	$(EXTRA) fidelity > $(VENV)/fidelity.txt
	$(PIP_EXTRA) --requirement $(VENV)/fidelity.txt
	@touch $@
