# make demo    the laptop campaign, from nothing to results/laptop/report/index.html
# make test    every test this machine can run, but for those that take minutes each
# make test-all   those too: thousands of damaged files, long soaks
# make lint    style, types, workflow
# make docs    the documents as a site, in site/
# make bench   our own speed and accuracy, one line per bar
# make cluster make cluster-demo make cluster-down   a small real Slurm with Apptainer on this machine (tests/slurm)
# make lock    pin pyproject.toml and requirements/*.in again

SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
CONFIG ?= config/config.yaml
COMPILE := $(BIN)/uv pip compile --quiet --upgrade --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
	--no-annotate --python-version 3.11

.PHONY: demo env dev test test-all lint docs bench cluster cluster-demo cluster-down lock schemas clean

demo: env
	@$(BIN)/snakemake --profile profiles/laptop --configfile '$(CONFIG)'

env: .venv/.runtime
dev: .venv/.dev $(if $(shell command -v npm),node_modules/.installed)

.venv/bin/uv: requirements/bootstrap.txt
	@echo "making .venv"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	@touch $@

# uv does not read pip's settings: where it cannot reach an index, pip can.
# Bytecode is made now: Snakemake starts three times as fast, in each job twice, and jobs need not write into .venv.
install = $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python $(1) || $(BIN)/python -m pip install --quiet --disable-pip-version-check $(1)

.venv/.runtime: .venv/bin/uv requirements/runtime.txt requirements/data.txt pyproject.toml
	@echo "installing what measuring and reporting need"
	@$(call install,--require-hashes -r requirements/runtime.txt)
	@$(call install,--require-hashes --no-deps -r requirements/data.txt)
	@$(call install,--no-deps -e .)
	@$(BIN)/python -m compileall -q src
	@touch $@

.venv/.dev: .venv/.runtime requirements/dev.txt
	@echo "installing what testing and linting need"
	@$(call install,--require-hashes -r requirements/dev.txt)
	@touch $@

# Tools for JavaScript, where Node is: a linter, and Grafana's parser of LogQL.
node_modules/.installed: package.json package-lock.json
	@npm ci --silent && touch $@ || echo "Tools for JavaScript cannot be installed: what needs them is left out and says so"

# Three at a time where tests mostly wait; those whose numbers are measurements have the machine to themselves.
test: WHICH := -m "not heavy"
test-all: WHICH :=
test test-all: dev
	@status=0; \
	$(BIN)/python -m pytest $(WHICH) --numprocesses 3 --dist loadfile tests/browser tests/services tests/unit tests/web || status=1; \
	$(BIN)/python -m pytest $(WHICH) tests/docs tests/slurm tests/truth tests/workflow || status=1; \
	exit $$status

lint: dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/snakefmt --check workflow tests/fixtures
	@$(BIN)/snakemake --lint
	@$(BIN)/codespell
	@$(BIN)/pre-commit validate-config
	@if [ -e node_modules/.installed ]; then node_modules/.bin/biome lint --error-on-warnings; \
	else echo "JavaScript is not linted: its tools are not installed"; fi

docs: dev
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

bench: dev
	@$(BIN)/python -m benchmarks

cluster:
	@tests/slurm/cluster up

cluster-demo: env
	@tests/slurm/demo

cluster-down:
	@tests/slurm/cluster down

lock: .venv/bin/uv
	@$(COMPILE) pyproject.toml -o requirements/runtime.txt
	@for part in bootstrap image dev; do $(COMPILE) requirements/$$part.in -o requirements/$$part.txt; done
	@$(COMPILE) --no-deps requirements/data.in -o requirements/data.txt

schemas: env
	@$(BIN)/aifbench schema
	@$(BIN)/aifbench reasons > docs/reasons.md

clean:
	rm -rf .venv node_modules site .snakemake .pytest_cache .mypy_cache .ruff_cache .hypothesis
