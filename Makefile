# One door: `make` alone lists the verbs. Nothing here needs more than Python 3.11 or 3.12 and make.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
PYTHON := $(VENV)/bin/python
RUN_READY := $(VENV)/.ready-run
DEV_READY := $(VENV)/.ready-dev
TRAIN_READY := $(VENV)/.ready-train
PIP_INSTALL := $(PYTHON) -m pip install --quiet --disable-pip-version-check --no-input
PYTEST := $(PYTHON) -m pytest
# Two workers, one per core; by file, so that what the tests of a file share is made once.
PYTEST_PARALLEL ?= -n 2 --dist loadfile --no-loadscope-reorder
SOURCES := schemas operators infra onnx_models dataflows tests

.PHONY: help
help: ## List the verbs
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- set up ---------------------------------------------------------------------------------------

.PHONY: setup
setup: $(RUN_READY) ## Create .venv with the pinned packages and fetch the broker's jars (instant when done)

.PHONY: setup-dev
setup-dev: $(DEV_READY) ## The same, and what lint, types, tests and trees need

.PHONY: setup-train
setup-train: $(TRAIN_READY) ## The same, and PyTorch for the networks (5 GB more)

$(PYTHON):
	@found=""; \
	for candidate in python3.12 python3.11 python3 python; do \
	  if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' \
	    >/dev/null 2>&1; then found="$$candidate"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "setup needs Python 3.11 or 3.12 with venv on PATH; found $$(python3 --version 2>&1 || echo none); install one of them" >&2; \
	  exit 1; \
	fi; \
	echo "creating $(VENV) with $$($$found --version)"; \
	"$$found" -m venv $(VENV)

$(RUN_READY): requirements/run.txt pyproject.toml | $(PYTHON)
	@echo "installing the pinned packages (about 0.5 GB, once) …"
	@$(PIP_INSTALL) --require-hashes --only-binary :all: -r requirements/run.txt
	@$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@$(PYTHON) -c 'from infra.stack.broker_jars import resolve_jars; resolve_jars()'
	@touch $@

$(DEV_READY): requirements/dev.txt $(RUN_READY)
	@echo "installing the pinned packages for development (about 0.3 GB more, once) …"
	@$(PIP_INSTALL) --require-hashes --only-binary :all: -r requirements/dev.txt
	@touch $@

$(TRAIN_READY): requirements/train.txt $(DEV_READY)
	@echo "installing PyTorch and what it needs (about 5 GB more, once) …"
	@$(PIP_INSTALL) --require-hashes --only-binary :all: -r requirements/train.txt
	@touch $@

# --- use ------------------------------------------------------------------------------------------

.PHONY: demo
demo: $(RUN_READY) ## A recorded market session through the whole stack, explained; all PAPER
	@$(VENV)/bin/quantstream demo

# --- check ----------------------------------------------------------------------------------------

.PHONY: test
test: lint types imports fast ## Lint, types, import rules and the whole fast suite (what CI runs)

.PHONY: check
check: lint types imports $(DEV_READY) ## The same without the tests that start a broker or a store
	$(PYTEST) $(PYTEST_PARALLEL) -m "not stack and not chaos and not bench"

.PHONY: lint
lint: $(DEV_READY) ## Ruff: rules and format
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

.PHONY: types
types: $(DEV_READY) ## mypy --strict
	$(VENV)/bin/mypy

.PHONY: imports
imports: $(DEV_READY) ## Who may import whom
	$(VENV)/bin/lint-imports

.PHONY: fast
fast: $(DEV_READY) ## Every test but chaos and benchmarks, against a real broker and store
	$(PYTEST) $(PYTEST_PARALLEL)

.PHONY: acceptance
acceptance: $(DEV_READY) ## Acceptance rows with criterion and measured value
	$(PYTEST) --acceptance

.PHONY: chaos
chaos: $(DEV_READY) ## Kill processes at random during a replay and compare the end state (minutes)
	$(PYTEST) -m chaos --timeout 3600 tests/chaos --chaos-table results/chaos.md

.PHONY: bench
bench: $(DEV_READY) ## Measure, write bench.json and docs/benchmarks.md (minutes, on a quiet machine)
	$(PYTHON) -m tests.benchmarks --out bench.json

# --- make again -----------------------------------------------------------------------------------

.PHONY: render
render: $(DEV_READY) ## Derived pages again: JSON Schema, DDL, dictionary, command line, settings, flow
	$(PYTHON) -m schemas.exports --out docs/reference
	$(PYTHON) -m dataflows.cli.reference

.PHONY: golden
golden: $(DEV_READY) ## Golden bytes of new message classes; what exists is never rewritten
	$(PYTHON) -m tests.contracts.samples

MODELS_OUT ?= build/models
.PHONY: models
models: $(TRAIN_READY) ## Train the shipped models again from the shipped recordings, into build/models
	$(VENV)/bin/quantstream train all --out $(MODELS_OUT) \
	  --data onnx_models/recordings/bars_1h_binance_spot_train.parquet \
	  --holdout onnx_models/recordings/bars_1h_binance_spot_later.parquet

.PHONY: pins
pins: ## Resolve requirements/*.txt again from pyproject.toml (needs uv on PATH)
	uv pip compile -q --universal --generate-hashes --no-annotate --no-header --no-emit-index-url \
	  --python-version 3.11 pyproject.toml requirements/build.in -o requirements/run.txt
	uv pip compile -q --universal --generate-hashes --no-annotate --no-header --no-emit-index-url \
	  --python-version 3.11 pyproject.toml requirements/build.in --extra dev --extra train \
	  --constraint requirements/run.txt --override requirements/without-torch.in -o requirements/dev.txt
	uv pip compile -q --universal --generate-hashes --no-annotate --no-header --no-emit-index-url \
	  --python-version 3.11 pyproject.toml requirements/build.in --extra dev --extra train \
	  --constraint requirements/dev.txt -o requirements/train.txt

.PHONY: clean
clean: ## Remove caches and build output; .venv and the state folder stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +
