# What a person types. `make repro` does everything; `make test` proves it.

PYTHON ?= python3
VENV ?= .venv
export PATH := $(abspath $(VENV))/bin:$(PATH)
export PYTHONUNBUFFERED := 1
.PHONY: help setup setup-dev repro test test-slow lint audit ui bench clean

help:
	@echo "make repro [PRESET=quick|laptop|paper] [STUDY=ablation] [TARGET=evaluate@doom-2]   the main job: everything, up to"
	@echo "             scores and report"
	@echo "make test    set up and pass the tests          make lint    ruff, mypy, import-linter"
	@echo "make ui      open MLflow                        make bench   the benchmarks"
	@echo "make test-slow   kills, signals and faults by the dozen, the pages of docs/howto to their ends, thousands of bad inputs (hours)"

# The lock is a constraints file: `setup` installs what the project and the presets need (PPO too), `setup-dev` the tools as well.
setup: $(VENV)/.setup
setup-dev: $(VENV)/.setup-dev

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "Python 3.11, 3.12 or 3.13 is needed: make setup PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.setup: requirements.lock pyproject.toml | $(VENV)/bin/python
	python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable ".[ppo]"
	@touch $@

$(VENV)/.setup-dev: $(VENV)/.setup
	python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable ".[dev]"
	@touch $@

repro: setup
	$(if $(STUDY),$(if $(PRESET),,$(error STUDY needs a PRESET: make repro PRESET=laptop STUDY=$(STUDY))))
	$(if $(PRESET),wm preset $(PRESET) $(foreach study,$(STUDY),--study $(study)))
	wm check
	wm repro $(TARGET)
	wm track sync
	wm show --next-steps

test: setup-dev
	python -m pytest -n 2 --dist loadfile --durations 30

test-slow: setup-dev
	python -m pytest -m slow -s
	WM_FUZZ_EXAMPLES=2000 python -m pytest tests/test_fuzz.py

lint: setup-dev
	ruff check .
	ruff format --check .
	mypy
	lint-imports

audit: setup-dev
	python -m pip install --quiet --disable-pip-version-check "pip-audit>=2"
	pip-audit --requirement requirements.lock --no-deps --disable-pip

ui: setup
	wm track ui

bench: setup
	@for file in benchmarks/*.py; do echo "== $$file"; python $$file || exit 1; done

clean:
	rm -rf artifacts metrics reports .state
