# All commands of this repository, for developers and CI. `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help setup demo demo-fleet test proofs check format bench load lock mutations crash-points fuzz soak soak-bugs soak-fleet soak-fleet-bugs test-engines test-pythons test-bounds test-elsewhere test-fresh package clean

BIN := .venv/bin
# Arguments for pytest: make test ARGS='-k verdict -x'
ARGS ?=
# In parallel, in the order of tests/conftest.py.
PYTEST = $(BIN)/python -m pytest -n auto --dist loadscope --no-loadscope-reorder --max-worker-restart 2
# Tests start ds01d hundreds of times: compile it once, also if the environment forbids that.
unexport PYTHONDONTWRITEBYTECODE

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install system packages (as root) and .venv; PYTHON= selects the interpreter
	@tools/setup.sh

demo: setup ## run ds01d with a private Docker engine and a simulated GPU
	@$(BIN)/python demo/demo.py

demo-fleet: setup ## run three hosts with an etcd, as root: a quota over all, one cut off, one killed, one restored
	@$(BIN)/python demo/fleet_demo.py

test: setup ## run every test, in parallel; ARGS= is for pytest, ARGS=-n0: one by one; PROOFS=yes: with the whole proofs
	@$(if $(PROOFS),DS01D_PROOFS=1) $(PYTEST) $(ARGS)

proofs: setup ## run the whole proofs, of which `make test` runs a part: random hosts, a campaign
	@DS01D_PROOFS=1 $(PYTEST) -m 'hypothesis or proof' $(ARGS)

check: setup ## check format, lint, types, imports and words, as CI does
	@$(BIN)/ruff format --check --quiet --output-format concise . || { echo 'run: make format'; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy $(wildcard ds01d tests simulation demo bench tools)
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/codespell $(shell git ls-files)
	@$(BIN)/python tools/words.py
	@if command -v shellcheck >/dev/null; then shellcheck share/*.sh share/completions/ds01-allocator tools/*.sh debian/reloading.sh debian/books.sh; fi

lock: setup ## update requirements.lock from pyproject.toml; ARGS=--upgrade: to the newest allowed versions
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --extra dev \
	  --no-header --no-annotate --no-python-downloads $(ARGS) --output-file requirements.lock pyproject.toml

format: setup ## fix what `check` reports, where ruff can do it
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format --quiet .

bench: setup ## measure the cost of a sweep, a release, the daemon and the web page; ARGS='--web' etc.: only that
	@$(BIN)/python bench/bench.py $(ARGS)

load: setup ## load test: 10,000 containers and 1,000 events per second for a minute
	@$(BIN)/python bench/load.py $(ARGS)

fuzz: setup ## fuzz every parser for SECONDS= each (120); ARGS='state limits': only these
	@$(BIN)/python -m pip install --quiet --editable '.[fuzz]'
	@$(BIN)/python -m tests.verification.fuzz --seconds $(or $(SECONDS),120) $(ARGS)

mutations: setup ## remove each guard of docs/invariants.md in turn: a test has to fail (minutes)
	@$(BIN)/python -m tests.verification.mutations $(ARGS)

soak: setup ## run a fault campaign with its oracle, as root: SEED=7 MINUTES=10; docs/reliability.md
	@$(BIN)/python -m tests.verification.campaign.run $(if $(SEED),--seed $(SEED)) --minutes $(or $(MINUTES),10) $(ARGS)

soak-bugs: setup ## plant fourteen bugs, one at a time: the oracle has to detect each (25 minutes)
	@$(BIN)/python -m tests.verification.campaign.bugs $(ARGS)

soak-fleet: setup ## run a fault campaign over five hosts and an etcd of three: SEED=7 MINUTES=10; docs/reliability.md
	@$(BIN)/python -m tests.verification.fleet.run $(if $(SEED),--seed $(SEED)) --minutes $(or $(MINUTES),10) $(ARGS)

soak-fleet-bugs: setup ## plant the bugs of a fleet, one at a time: the checker has to detect each (minutes)
	@$(BIN)/python -m tests.verification.fleet.bugs $(ARGS)

crash-points: setup ## look at the disk at every call that changes a file: no change may stay incomplete
	@$(BIN)/python -m tests.verification.crash.points $(ARGS)

test-pythons: setup ## run the unit tests on each installed Python from 3.10 to 3.13; EXCEPT= excludes versions
	@tools/test-pythons.sh $(ARGS)

test-bounds: setup ## run them with the lowest versions of all libraries, and with the newest (failures are only reported)
	@BOUNDS=only tools/test-pythons.sh $(ARGS)

test-engines: setup ## run the tests with Docker on several versions; ENGINES='bookworm trixie forky forky+containerd'
	@ENGINES='$(ENGINES)' tools/test-engines.sh $(ARGS)

test-fresh: setup ## test from clone to purge on pristine Debian 12 and 13, as root (half an hour)
	@$(BIN)/python -m tests.fresh $(ARGS)

test-elsewhere: setup ## run some tests just booted, with umask 077, another zone and locale, blanks in the path
	@tools/test-elsewhere.sh $(ARGS)

package: setup ## build the Debian package for this distribution, the wheel and the source archive, into dist/
	@rm -rf dist
	@tools/package.sh

clean: ## remove everything that these commands create; system packages stay
	@rm -rf .venv .venvs .setup.lock dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
