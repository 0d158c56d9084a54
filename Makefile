# Everything a person does in this repository, and all that CI does. `make` alone lists it.
.DEFAULT_GOAL := help
.PHONY: help setup demo test proofs check format bench load lock mutations crash-points fuzz soak soak-bugs test-engines test-pythons test-bounds test-elsewhere test-fresh package clean

BIN := .venv/bin
# What to pass to pytest: make test ARGS='-k verdict -x'
ARGS ?=
# Several at once, begun in the order of tests/conftest.py.
PYTEST = $(BIN)/python -m pytest -n auto --dist loadgroup --no-loadscope-reorder --max-worker-restart 2
# Tests start ds01d hundreds of times: it is compiled once, whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## system packages (as root) and .venv; PYTHON= chooses the interpreter
	@tools/setup.sh

demo: setup ## ds01d at work on a private Docker engine and a simulated GPU
	@$(BIN)/python demo/demo.py

test: setup ## every test, several at once; ARGS= goes to pytest, ARGS=-n0 runs one by one; PROOFS=yes is all of both
	@$(if $(PROOFS),DS01D_PROOFS=1) $(PYTEST) $(ARGS)

proofs: setup ## what `make test` tries a part of, whole: random hosts, crash points, a campaign
	@DS01D_PROOFS=1 $(PYTEST) -m 'hypothesis or proof' $(ARGS)

check: setup ## format, lint, types, imports and words, as CI does
	@$(BIN)/ruff format --check --quiet --output-format concise . || { echo 'run: make format'; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy $(wildcard ds01d tests simulation demo bench tools)
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/codespell $(shell git ls-files)
	@$(BIN)/python tools/words.py
	@if command -v shellcheck >/dev/null; then shellcheck share/*.sh share/completions/* tools/*.sh debian/reloading.sh debian/books.sh; fi

lock: setup ## requirements.lock as pyproject.toml has it; ARGS=--upgrade takes the newest versions that it allows
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --extra dev \
	  --no-header --no-annotate --no-python-downloads $(ARGS) --output-file requirements.lock pyproject.toml

format: setup ## rewrite the code as `check` wants it, where that is mechanical
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format --quiet .

bench: setup ## what a sweep, a release and the daemon cost
	@$(BIN)/python bench/bench.py

load: setup ## 10,000 containers and 1,000 events a second for a minute
	@$(BIN)/python bench/load.py $(ARGS)

fuzz: setup ## every parser, SECONDS= each (120); ARGS='state limits' only those
	@$(BIN)/python -m pip install --quiet --editable '.[fuzz]'
	@$(BIN)/python -m tests.verification.fuzz --seconds $(or $(SECONDS),120) $(ARGS)

mutations: setup ## take each guard of docs/invariants.md away: some test has to fail (minutes)
	@$(BIN)/python -m tests.verification.mutations $(ARGS)

soak: setup ## a fault campaign with its oracle, as root: SEED=7 MINUTES=10; docs/reliability.md
	@$(BIN)/python -m tests.verification.campaign.run $(if $(SEED),--seed $(SEED)) --minutes $(or $(MINUTES),10) $(ARGS)

soak-bugs: setup ## plant fourteen bugs, one at a time: that oracle has to catch each (25 minutes)
	@$(BIN)/python -m tests.verification.campaign.bugs $(ARGS)

crash-points: setup ## kill ds01d at every call that changes a file: nothing may be half done (minutes)
	@$(BIN)/python -m tests.verification.crash.points $(ARGS)

test-pythons: setup ## the unit tests on each Python from 3.10 to 3.13 that is found; EXCEPT= leaves out
	@tools/test-pythons.sh $(ARGS)

test-bounds: setup ## those with the lowest versions of all libraries, and with the newest, which is only reported
	@BOUNDS=only tools/test-pythons.sh $(ARGS)

test-engines: setup ## what needs Docker, on three generations of it; ENGINES='bookworm trixie forky forky+containerd'
	@ENGINES='$(ENGINES)' tools/test-engines.sh $(ARGS)

test-fresh: setup ## from clone to purge on pristine Debian 12 and 13, as root (half an hour)
	@$(BIN)/python -m tests.fresh $(ARGS)

test-elsewhere: setup ## some tests as just booted, with umask 077, another zone and locale, blanks in the path
	@tools/test-elsewhere.sh $(ARGS)

package: setup ## Debian package for this distribution, wheel and source archive, into dist/
	@rm -rf dist
	@tools/package.sh

clean: ## remove everything that is made here; system packages stay
	@rm -rf .venv .venvs .setup.lock dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
