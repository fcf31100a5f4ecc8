# A thin wrapper: README.md shows the plain commands behind each target.
PYTHON ?= python3
CORES ?= $(shell nproc 2>/dev/null || echo 2)
BIN := .venv/bin

.PHONY: help setup extras demo test lint bench lock clean
help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

setup: .venv/.run ## install the pinned environment into .venv

extras: .venv/.run ## add what CLIP, timm, transformers, TV-L1 and mmaction2 need
	$(BIN)/pip install --quiet --require-hashes -r requirements-extras.lock

demo: .venv/.run ## run the shipped config and print what it found
	$(BIN)/snakemake --cores $(CORES) --quiet rules
	$(BIN)/reelstack summary results

test: .venv/.dev ## run all tests
	$(BIN)/pytest

lint: .venv/.dev ## formatting, lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/mypy
	$(BIN)/snakemake --lint

bench: .venv/.run ## measure speed and memory; prints ratios
	$(BIN)/python tests/bench/plan.py
	$(BIN)/python tests/bench/memory.py
	$(BIN)/python tests/bench/wall_time.py
	$(BIN)/python tests/bench/models.py

lock: ## renew the hash-pinned locks (needs uv)
	uv pip compile pyproject.toml --universal --fork-strategy fewest --generate-hashes --python-version 3.11 --no-header -o requirements.lock
	uv pip compile pyproject.toml --extra all --universal --fork-strategy fewest --generate-hashes --python-version 3.11 --no-header -c requirements.lock -o requirements-extras.lock
	uv pip compile pyproject.toml --extra all --extra dev --universal --fork-strategy fewest --generate-hashes --python-version 3.11 --no-header -c requirements-extras.lock -o requirements-dev.lock

clean: ## delete the demo's results and logs (not the environment)
	rm -rf results logs benchmarks .snakemake

.venv/.run: requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Reelstack needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

.venv/.dev: requirements-dev.lock .venv/.run
	$(BIN)/pip install --quiet --require-hashes -r requirements-dev.lock
	touch $@
