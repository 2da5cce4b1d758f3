# Every target does its own set-up: a virtual environment in the checkout, then pip. `make help` lists the targets.

PYTHON ?= python3
PYTEST_ARGS ?=
# Each takes up to 2 GB. For a debugger: make test PYTEST_ARGS='-n0 --pdb'.
TEST_PROCESSES ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# One OpenMP thread: with more, a busy neighbour makes every small tensor operation wait for spinning threads.
export OMP_NUM_THREADS := 1
export RAY_USAGE_STATS_ENABLED := 0
export TOKENIZERS_PARALLELISM := false

# An environment whose `testbed` is not this checkout's (moved, copied, half made, Python gone) is set up again.
INSTALLED := $(shell $(BIN)/python -P -c 'import testbed; print(*testbed.__path__)' 2>/dev/null)
ifneq ($(INSTALLED),$(CURDIR)/testbed)
.PHONY: $(STAMP)
endif

.PHONY: help demo test test-slow test-netns test-gpu lint bench schema clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-10s %s\n", $$1, $$2}' Makefile

# The stamp is written last, so an interrupted installation is repeated. An environment that pip can't use from here is
# made anew; any other is brought up to date in place.
$(STAMP): pyproject.toml
	@$(BIN)/pip --version 2>/dev/null | grep -qF '$(CURDIR)/$(VENV)/' || $(PYTHON) -m venv --clear $(VENV)
	@echo 'installing into $(VENV) (about a minute the first time)'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(STAMP)  ## run the demo scenario on local Ray workers; results in runs/demo
	$(BIN)/testbed run scenarios/demo.yaml --executor ray --out runs/demo --force

test: export HF_HUB_OFFLINE := 1
test: $(STAMP)  ## run the default tests (minutes)
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) $(PYTEST_ARGS)

test-slow: export HF_HUB_OFFLINE := 1
test-slow: $(STAMP)  ## run the tests that take minutes each
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) -m 'slow and not gpu' $(PYTEST_ARGS)

test-netns: export HF_HUB_OFFLINE := 1
test-netns: $(STAMP)  ## run the tests against the kernel's own TCP, in network namespaces
	$(BIN)/python -m pytest -m netns $(PYTEST_ARGS)

test-gpu: export HF_HUB_OFFLINE := 1
test-gpu: $(STAMP)  ## run the tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu $(PYTEST_ARGS)

lint: $(STAMP)  ## style, types and import rules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(STAMP)  ## print the benchmark table; write build/bench.json
	$(BIN)/python -m tests.perf.run

schema: $(STAMP)  ## write the scenario's JSON Schema, for editors, to build/scenario.schema.json
	@mkdir -p build
	$(BIN)/testbed schema > build/scenario.schema.json

clean:  ## remove everything that the other targets made, except results in runs/
	rm -rf build dist $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
