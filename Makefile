# Everything a newcomer needs is `make demo` and `make test`; each makes the environment where it is missing.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Waiting OpenMP threads that spin make torch many times slower on a shared machine.
export OMP_WAIT_POLICY ?= PASSIVE
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1
# Data sets and models beside the checkout are found without being told.
ifneq ($(wildcard ../shared/data),)
export TANDEMREC_DATA ?= $(abspath ../shared/data)
endif
ifneq ($(wildcard ../shared/models),)
export TANDEMREC_MODELS ?= $(abspath ../shared/models)
endif

.PHONY: demo test lint format docs bench clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --no-compile -c constraints.txt torch==2.13.0 -e '.[test,lint]'
	touch $@

demo: $(VENV)/.installed  ## the main job on the bundled sample, with the embedded nano language model
	$(BIN)/tandem run sample --out demo-run

test: lint  ## everything CI checks
	$(BIN)/pytest -n auto --dist worksteal

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed  ## pages that come from the code: docs/api, tables of docs/papers.md
	$(BIN)/python docs/build.py

bench: $(VENV)/.installed  ## side-by-side speed and memory programs
	for program in benchmarks/{ingest,finetune,grounding,decode,selection,rating,conventional,ranker}.py; do \
		$(BIN)/python $$program || exit 1; done

clean:
	rm -rf $(VENV) demo-run
