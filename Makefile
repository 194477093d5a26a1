# Every target sets up what it needs; `make help` lists them.
PY := .venv/bin/python
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
export PYTHONUNBUFFERED := 1

# Size of make paper, its parts and make depth: smoke (digits, minutes), cpu (Fashion-MNIST, an evening; depth: MNIST, an
# hour), paper (400 epochs, depth 5000; a GPU)
PROFILE ?= cpu
# Instead of the profile's own: make figure1 DATASET=mnist SEEDS=0,1 EPOCHS=30
DATASET ?=
SEEDS ?=
EPOCHS ?=
# Runs side by side; empty: as many as there are free cores, at most 8
JOBS ?=
# Seeds of a run in one process, as nclab-train seeds=[...]; empty: 1
TOGETHER ?=
OUTPUT ?= outputs
# Further keys of all runs: make figure1 ARGS="optimizer.lr=0.02"
ARGS ?=
# Further keys of the runs with a policy: make figure2 ETF="etf.threshold=0.95"
ETF ?=

.DEFAULT_GOAL := help
# Parts share runs, and each already uses all cores
.NOTPARALLEL:
PAPER = $(addprefix $(OUTPUT)/,figure1 figure2 figure3 controls controls_vit)
PLAN = $(PY) scripts/paper.py --profile $(PROFILE) --output $(OUTPUT) $(if $(DATASET),--dataset $(DATASET)) \
	$(if $(SEEDS),--seeds $(SEEDS)) $(if $(EPOCHS),--epochs $(EPOCHS)) $(if $(JOBS),--jobs $(JOBS)) \
	$(if $(TOGETHER),--together $(TOGETHER)) \
	$(foreach key,$(ETF),--policy $(key)) $(ARGS)
.PHONY: help setup demo train test test-fast test-slurm chaos lint docs-config audit bench paper claims clean \
	figure1 figure2 figure3 figure4 table1 table2 controls controls_vit depth claims_depth

help:  ## list the targets
	@grep -hE '^[a-z0-9_ -]+:.*##' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

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

paper: setup  ## every figure and table, restartable: PROFILE=smoke|cpu|paper
	$(PLAN)

figure1 figure2 figure3 figure4 table1 table2 controls controls_vit: setup  ## one part: PROFILE= DATASET= SEEDS= EPOCHS=
	$(PLAN) $@

depth: setup  ## the depth study of arXiv 2505.15239, restartable: PROFILE=smoke|cpu|paper
	$(PLAN) --plan depth

claims: setup  ## judge the claims of conf/claims.yaml by the runs that are there: a page in OUTPUT/report
	$(PY) scripts/claims.py $(or $(wildcard $(PAPER)),$(OUTPUT)) $(if $(wildcard $(OUTPUT)/figures),--figures $(OUTPUT)/figures) \
		--out $(OUTPUT)/report

claims_depth: setup  ## judge the claims of conf/claims_depth.yaml likewise: a page in OUTPUT/report_depth
	$(PY) scripts/claims.py $(or $(wildcard $(OUTPUT)/depth_*),$(OUTPUT)) --ledger conf/claims_depth.yaml \
		$(if $(wildcard $(OUTPUT)/figures),--figures $(OUTPUT)/figures) --out $(OUTPUT)/report_depth

bench: setup  ## measuring, training, layers, seeds, growth: ratios in one run, beside the machine's limits
	$(PY) scripts/bench_measure.py
	$(PY) scripts/bench_train.py
	$(PY) scripts/bench_layers.py --threads 1
	$(PY) scripts/bench_seeds.py --threads 1
	$(PY) scripts/bench_growth.py
	$(PY) scripts/bench_table.py

chaos: setup  ## kill runs at 100 random moments, resume and compare them bit for bit: five minutes on two cores
	$(PY) scripts/chaos.py $(ARGS)

test: setup  ## run the tests
	$(PY) -m pytest -n 2 $(ARGS)

test-fast: setup  ## run the core of the tests: a minute
	$(PY) -m pytest -n 2 -m fast $(ARGS)

test-slurm: setup  ## sweeps on a real Slurm on this machine, which preempts, cancels and loses them: ten minutes, root
	$(PY) -m pytest -n 0 -m slurm -rs -s tests/test_slurm.py $(ARGS)

lint: setup  ## check lint and format
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

docs-config: setup  ## write docs/configuration.md and the comments of conf/ from the settings dataclasses
	$(PY) -m nclab.config.docs

audit: | $(UV)  ## known vulnerabilities of the pinned requirements; fails where they cannot be looked up
	@$(UV) tool run pip-audit@2.10.1 --strict --requirement requirements.lock --require-hashes --disable-pip \
		--progress-spinner off || { echo "audit: not passed: the lines above name what is vulnerable, or what the" \
		"vulnerability service gave no answer about" >&2; exit 1; }

clean:  ## remove the environment and caches, never outputs/ or data/
	rm -rf .venv .uv .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
