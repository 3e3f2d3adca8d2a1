# Fr: `make help` lists what there is.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := all

VENV ?= .venv
SCANS ?= 4
ROUNDS ?= 10
SEED ?=
FULL ?=
ARGS ?=

BIN := $(VENV)/bin
TWISTD := $(BIN)/twistd -n --pidfile=
INSTALLED := $(VENV)/.fr-installed
LINTERS := $(VENV)/.fr-linters
DATA_VENV ?= .venv-data
DATA_TOOLS := $(DATA_VENV)/.fr-data-tools
CODE := fr_twisted tests twisted scripts

.PHONY: all demo pacs-demo hub brain pacs store tests faults coverage lint bench accuracy data clean help install

all: $(INSTALLED) ## everything in one terminal: sends SCANS=4 scans, stays up until Ctrl-C
	@$(BIN)/python -m fr_twisted.ops.house --scans $(SCANS) --stay $(ARGS)

demo: $(INSTALLED) ## the same for SCANS=n, ends with a table once all reports are there
	@$(BIN)/python -m fr_twisted.ops.house --scans $(SCANS) --until-done $(ARGS)

pacs-demo: $(INSTALLED) ## beside Orthanc: it passes a study on to Fr, and shows the results beside the images; until Ctrl-C
	@$(BIN)/python -m fr_twisted.ops.pacs_demo --stay $(ARGS)

hub brain pacs store: $(INSTALLED) ## run one unit, with ARGS="--option=value ..."
	@exec $(TWISTD) fr$@ $(ARGS)

tests: $(INSTALLED) ## unit tests under trial, then those of whole units under pytest, which can run both (make coverage)
	@mkdir -p .fr
	$(BIN)/python -m twisted.trial --jobs=2 --reporter=text --temp-directory=.fr/trial tests.unit 2>&1 | tee .fr/trial.log
	@grep -Eq '^Ran [1-9][0-9]* tests' .fr/trial.log || { echo 'trial ran no test' >&2; exit 1; }
	@# pytest fails by itself when it finds no test
	$(BIN)/python -m pytest -n 3 --dist loadfile -m 'not alone' tests/integration
	$(BIN)/python -m pytest -m alone tests/integration

faults: $(INSTALLED) ## ROUNDS=10 of kills, cuts and bad input under load, from SEED=n (a new one); FULL=1: whole heads
	$(BIN)/python -m tests.faults --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED)) $(if $(FULL),--full) $(ARGS)

coverage: $(INSTALLED) ## line coverage of both runs, daemons included; fails under the floor in setup.cfg
	rm -f .coverage .coverage.*
	$(BIN)/coverage run -m twisted.trial --reporter=text --temp-directory=.fr/trial tests.unit
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

lint: $(LINTERS) ## black, isort, ruff, mypy strict
	$(BIN)/black --check --quiet --line-length 110 $(CODE)
	$(BIN)/isort --check --quiet $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy fr_twisted tests

bench: $(INSTALLED) ## measure the figures of docs/benchmarks.md
	$(BIN)/python -m tests.benchmarks $(ARGS)

accuracy: $(INSTALLED) ## measure how true the numbers are; writes docs/accuracy.md (about 20 minutes of two cores)
	$(BIN)/python -m tests.accuracy $(ARGS)

data: $(DATA_TOOLS) ## make the shipped data files again, from packages of the package index
	$(DATA_VENV)/bin/python scripts/make_brain_data.py
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(DATA_VENV)/bin/python scripts/make_pacs_data.py

install: $(INSTALLED) ## only make .venv

clean: ## remove .venv and what was built; scans and reports in .fr stay
	rm -rf $(VENV) build dist *.egg-info .coverage .coverage.* htmlcov _trial_temp* .fr/trial .fr/trial.log
	rm -rf .mypy_cache .ruff_cache .hypothesis twisted/plugins/dropin.cache
	find fr_twisted tests twisted scripts -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## this list
	@grep -hE '^[a-z -]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z -]+):.*## (.*)/\1\t\2/' | \
		while IFS=$$'\t' read -r names what; do printf '%-24s %s\n' "$$names" "$$what"; done

# A Python that is on the PATH may still not run (a version manager's shim): the first that does, and is new enough.
$(VENV)/bin/python:
	@for python in $(PYTHON) python3.12 python3.13 python3.11 python3; do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "making $(VENV) with $$("$$python" --version)"; \
			exec "$$python" -m venv $(VENV); \
		fi; \
	done; \
	echo 'Fr needs Python 3.11 or newer, with its venv module; name one: make PYTHON=/path/to/python3.12' >&2; exit 1

$(INSTALLED): setup.cfg pyproject.toml | $(VENV)/bin/python
	@echo 'installing Fr and what it needs; the first time this takes a minute or two'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[tests]'
	@# Twisted keeps a cache of plugins, which only the installer may be able to write.
	@$(BIN)/python -c 'from twisted.plugin import IPlugin, getPlugins; list(getPlugins(IPlugin))'
	@touch $@

$(LINTERS): $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[lint]'
	@touch $@

# antspyx holds numpy and scipy back: what makes the data has an environment of its own.
$(DATA_TOOLS): setup.cfg | $(VENV)/bin/python
	@$(BIN)/python -m venv $(DATA_VENV)
	@$(DATA_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[data]'
	@touch $@
