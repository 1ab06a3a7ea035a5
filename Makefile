# Needs only make and a Python of 3.11 or newer with venv. `make help` lists what there is.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
# Arguments for the tools: make test ARGS="tests/pricing -x", make run ARGS="--config my.yaml".
ARGS ?=
# Processes that run tests.
JOBS ?= auto
# The first of these that is new enough; name another with make run PYTHON=/path/to/python3.
PYTHON ?= python3
NEW_ENOUGH := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --no-input
CODE := gateway grafana pricing stack tests $(wildcard bench)

.PHONY: help
help:  ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: $(VENV)/.ready  ## Start the gateway on 127.0.0.1:8080 (ARGS="--config my.yaml" for your own settings).
	@exec $(BIN)/python -m gateway serve $(ARGS)

.PHONY: stack
stack: $(VENV)/.ready-dev  ## Start gateway, PostgreSQL, Valkey, Prometheus, Alertmanager and traffic here, without Docker.
	@exec $(BIN)/python -m stack $(ARGS)

.PHONY: test
test: $(VENV)/.ready-dev  ## Run every test (ARGS="tests/pricing -x" for some; JOBS=1 for one process).
	@command -v prometheus >/dev/null 2>&1 && command -v promtool >/dev/null 2>&1 || \
	  echo "make test: no Prometheus is installed here, so the tests that scrape with a real one are skipped."
	@command -v cc >/dev/null 2>&1 || \
	  echo "make test: no C compiler is installed here, so the test in which clocks jump is skipped."
	@$(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal $(ARGS)

.PHONY: nightly
nightly: $(VENV)/.ready-dev  ## Let everything fail under load, by 50 seeds (ARGS="--seed 17" for one again).
	@$(BIN)/python -m tests.chaos $(ARGS)

.PHONY: check
check: $(VENV)/.ready-dev  ## Check format, lint, types, import contracts and house rules.
	$(BIN)/ruff format --check --quiet $(CODE)
	$(BIN)/ruff check --quiet $(CODE)
	$(BIN)/python -m mypy
	$(BIN)/lint-imports --verbose >$(VENV)/lint-imports.txt || { cat $(VENV)/lint-imports.txt; exit 1; }
	$(BIN)/python -m pytest -q -p no:cacheprovider tests/house

.PHONY: bench
bench: $(VENV)/.ready-dev  ## Measure the gateway against a bare proxy, its prices and its ledger; writes bench/RESULTS*.md.
	@$(BIN)/python -m bench $(ARGS)
	@$(BIN)/python -m bench.streams
	@$(BIN)/python -m bench.prices
	@$(BIN)/python -m bench.rerate
	@$(BIN)/python -m bench.shipping --results bench/RESULTS-shipping.md
	@$(BIN)/python -m bench.queries --results bench/RESULTS-queries.md
	@$(BIN)/python -m bench.scrape --results bench/RESULTS-scrape.md
	@$(BIN)/python -m bench.durability --results bench/RESULTS-durability.md

.PHONY: catalog
catalog: $(VENV)/.ready-dev  ## Publish a catalog from the installed lists (ARGS="--version V --at T --note N").
	@$(BIN)/python -m pricing.importers.publish $(ARGS)

.PHONY: boards
boards: $(VENV)/.ready-dev  ## Write grafana/dashboards again, from grafana/generate.
	@$(BIN)/python -m grafana.generate

.PHONY: cover
cover: $(VENV)/.ready-dev  ## Run every test and show which branches none of them took.
	@$(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal --cov --cov-report=term $(ARGS)

.PHONY: format
format: $(VENV)/.ready-dev  ## Rewrite the code in the house format.
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix --quiet $(CODE)

.PHONY: lock
lock:  ## Pin every dependency again, none younger than a week (needs uv).
	week_ago=$$($(PYTHON) -c 'import datetime; print(datetime.date.today() - datetime.timedelta(days=7))'); \
	compile="uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --no-annotate --exclude-newer $$week_ago pyproject.toml"; \
	$$compile --group build -o requirements.lock && \
	$$compile --group dev -c requirements.lock -o requirements-dev.lock && \
	awk '/^[a-z]/ {keep = /^psycopg/} keep' requirements-dev.lock > stack/psycopg.lock

.PHONY: clean
clean:  ## Remove the environment and every cache; keeps ./data.
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache \
	  .hypothesis .coverage .coverage.* htmlcov

# The files named .ready are stamps: while they are newer than the locks, nothing is installed and
# a second `make run` starts at once. The locks are complete, so pip is told to look for nothing else:
# left to resolve, it stumbles over a release younger than the lock wherever a package asks for an
# extra of another (pip's issue 9644).
$(BIN)/python:
	@for python in "$(PYTHON)" python3.14 python3.13 python3.12 python3.11; do \
	  if "$$python" -c '$(NEW_ENOUGH)' >/dev/null 2>&1; then found="$$python"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "taximeter needs Python 3.11 or newer with the venv module." >&2; \
	  echo "$(PYTHON) is: $$($(PYTHON) --version 2>&1 | head -n 1)" >&2; \
	  echo "Install one, or name one: make run PYTHON=/path/to/python3.11" >&2; \
	  exit 2; \
	fi; \
	echo "1/3 Making $(VENV) with $$("$$found" --version)"; \
	"$$found" -m venv $(VENV)

$(VENV)/.ready: requirements.lock pyproject.toml | $(BIN)/python
	@echo "2/3 Installing $$(grep -c '==' requirements.lock) pinned packages (a minute or two the first time)"
	@$(PIP) install --require-hashes --no-deps -r requirements.lock
	@echo "3/3 Installing taximeter itself"
	@$(PIP) install --no-deps --no-index --no-build-isolation --editable .
	@touch $@

$(VENV)/.ready-dev: requirements-dev.lock $(VENV)/.ready
	@echo "Installing $$(grep -c '==' requirements-dev.lock) pinned packages that tests and checks need"
	@$(PIP) install --require-hashes --no-deps -r requirements-dev.lock
	@$(PIP) check
	@touch $@
