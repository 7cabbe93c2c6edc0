# Every target sets up what it needs in .venv first: nothing but Python 3.11 (or 3.12) and make is expected.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12)
BIN := .venv/bin
READY := .venv/ready
SEED ?= 1
TOOLS := $(HOME)/.cache/lockstep/bin
LONG := tests/benchmarks tests/training/test_skew_laboratory.py

.DEFAULT_GOAL := help
.PHONY: help setup demo lab exit-test test test-long test-services faults check format bench lock clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: $(READY) ## Make .venv from the hashed lock

$(READY): requirements/uv.txt requirements/dev.txt pyproject.toml
	@test ! -L .venv || { echo "error: .venv is a link, and --clear would empty what it points to; remove the link" >&2; exit 2; }
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or 3.12 is needed; set PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes -r requirements/uv.txt
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --only-binary :all: --require-hashes -r requirements/dev.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY) ## The whole loop on this machine: raw events to a gated promotion
	$(BIN)/lockstep demo

lab: $(READY) ## The skew laboratory on what the demo left, with many seeds; writes docs/skew-lab.md
	$(BIN)/lockstep skew all --seeds 40 --clean-seeds 200 --write docs/skew-lab.md

exit-test: $(READY) ## The exit test on what the demo left, taken with the tools alone; SEED=N draws another one
	EXIT_TEST_SEED=$(SEED) $(BIN)/pytest -s tests/exit_test

test: $(READY) ## All tests that need no server but the bundled ones
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --ignore tests/faults --ignore tests/services \
		--ignore tests/exit_test $(foreach path,$(LONG),--ignore $(path))

test-long: $(READY) ## The laboratory and the benchmarks, each tried once in small
	$(BIN)/pytest -n 2 --dist loadfile $(LONG)

test-services: $(READY) ## Tests with real servers, as far as they are installed or can be
	@command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || apt-get install -y -qq postgresql >/dev/null \
		|| echo "NOT INSTALLED: postgresql (its tests are skipped)"
	@command -v kustomize >/dev/null || command -v kubectl >/dev/null || test -x $(TOOLS)/kustomize \
		|| GOBIN=$(TOOLS) go install sigs.k8s.io/kustomize/kustomize/v5@v5.8.1 \
		|| echo "NOT INSTALLED: kustomize (its tests are skipped)"
	$(BIN)/pytest -n 2 --dist loadfile tests/services

faults: $(READY) ## Kills, flushes, restarts: minutes, not in CI
	$(BIN)/pytest tests/faults

check: $(READY) ## Format, lint, types, and that the committed manifests are what the code renders
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright --level error
	$(BIN)/lockstep check

format: $(READY) ## Format and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) ## Published figures, each against its peer in the same run
	@for script in $$(ls benchmarks/[a-z]*.py); do \
		$(BIN)/python -m benchmarks.$$(basename $$script .py) || exit 1; done

lock: $(READY) ## Resolve requirements/*.txt anew from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header pyproject.toml -o requirements/base.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header pyproject.toml --group dev -o requirements/dev.txt
	echo 'uv' | $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate - -o requirements/uv.txt

clean: ## Remove .venv and the local state
	rm -rf .venv .lockstep
