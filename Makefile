# Every target sets up what it needs; `make help` lists them.
PY := .venv/bin/python
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
export PYTHONUNBUFFERED := 1

# Variables of the figures: make figure1 DATASET=mnist SEEDS=0,1 EPOCHS=30
DATASET ?= fashion_mnist
SEEDS ?= 0,1,2
EPOCHS ?= 400
OUTPUT ?= outputs
ARGS ?=
# Further keys of the policy alone: make figure2 ETF="etf.threshold=0.95"
ETF ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo train test lint bench figure1 figure2 clean

help:  ## list the targets
	@grep -hE '^[a-z0-9_-]+:.*##' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

setup: .venv/.ready  ## create .venv and install the pinned requirements

.venv/.ready: pyproject.toml requirements.lock | $(UV)
	$(UV) venv --quiet --allow-existing --python '>=3.11' .venv
	$(UV) pip sync --quiet --python $(PY) --require-hashes --compile-bytecode requirements.lock
	$(UV) pip install --quiet --python $(PY) --no-deps --editable .
	@touch $@

.uv/bin/uv:
	python3 -m venv .uv
	.uv/bin/python -m pip install --quiet uv

demo: setup  ## digits, five policies, three seeds: figures and a table in two minutes
	$(PY) -m nclab.train --multirun experiment=demo output_root=$(OUTPUT) etf=none seed=0,1,2
	$(PY) -m nclab.train --multirun experiment=demo output_root=$(OUTPUT) etf=last_k etf.k=1,2,3 seed=0,1,2
	$(PY) -m nclab.train --multirun experiment=demo output_root=$(OUTPUT) etf=adaptive seed=0,1,2
	$(PY) scripts/figure1.py $(OUTPUT)/demo --out $(OUTPUT)/figures/demo_figure1
	$(PY) scripts/figure2.py $(OUTPUT)/demo --out $(OUTPUT)/figures/demo_figure2
	$(PY) scripts/summary.py $(OUTPUT)/demo --out $(OUTPUT)/figures/demo_summary
	@printf 'pictures:\n'; ls $(OUTPUT)/figures/demo_figure1.* $(OUTPUT)/figures/demo_figure2.*

train: setup  ## one run: make train ARGS="dataset=mnist5k etf=last_k etf.k=2"
	$(PY) -m nclab.train $(ARGS)

figure1: setup  ## baseline against 1, 2, 3 fixed last layers: DATASET= SEEDS= EPOCHS=
	$(PY) scripts/fetch_data.py $(DATASET)
	$(PY) -m nclab.train --multirun experiment=figure1 $(SWEEP) etf=none
	$(PY) -m nclab.train --multirun experiment=figure1 $(SWEEP) etf=last_k etf.k=1,2,3 $(ETF)
	$(PY) scripts/figure1.py $(OUTPUT)/figure1 $(SELECT) --out $(OUTPUT)/figures/figure1_$(DATASET)

figure2: setup  ## baseline against Adaptive-ETF: DATASET= SEEDS= EPOCHS=
	$(PY) scripts/fetch_data.py $(DATASET)
	$(PY) -m nclab.train --multirun experiment=figure1 $(SWEEP) etf=none
	$(PY) -m nclab.train --multirun experiment=figure2 $(SWEEP) $(ETF)
	$(PY) scripts/figure2.py $(OUTPUT)/figure1 $(OUTPUT)/figure2 $(SELECT) --out $(OUTPUT)/figures/figure2_$(DATASET)

SWEEP = dataset=$(DATASET) seed=$(SEEDS) epochs=$(EPOCHS) output_root=$(OUTPUT) $(ARGS)
SELECT = --dataset $(DATASET) --seeds $(SEEDS) --epochs $(EPOCHS)

bench: setup  ## measure the cost of measuring, as ratios in one run
	$(PY) scripts/bench_measure.py

test: setup  ## run the tests
	$(PY) -m pytest -n 2 $(ARGS)

lint: setup  ## check lint and format
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

clean:  ## remove the environment and caches, never outputs/ or data/
	rm -rf .venv .uv .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
