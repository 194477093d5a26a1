# Every target sets up what it needs; `make help` lists them.
PY := .venv/bin/python
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
export PYTHONUNBUFFERED := 1

# Size of make WING and its parts: smoke (digits, minutes), cpu (simplex_etf: Fashion-MNIST, an evening; depth: MNIST, an
# hour), gpu_hour, paper (400 epochs, depth 5000; a GPU)
PROFILE ?= cpu
# These parts alone: make depth PART=depth_rn,depth_mse
PART ?=
# Instead of the profile's own: make figure1 DATASET=mnist SEEDS=0,1 EPOCHS=30
DATASET ?=
SEEDS ?=
EPOCHS ?=
# Runs side by side; empty: as many as there are free cores, at most 8
JOBS ?=
# Seeds of a run in one process, as nclab-train seeds=[...]; empty: the profile's, or 1
STACK ?=
OUTPUT ?= outputs
# Further keys of all runs: make figure1 ARGS="optimizer.lr=0.02"
ARGS ?=
# Build of torch: make setup TORCH=cpu, from torch's own index. Empty: the one that .venv was set up with, first PyPI's,
# which on Linux brings NVIDIA's libraries
TORCH ?=
SET_UP := $(shell cat .venv/.torch 2>/dev/null)
BACKEND := $(or $(TORCH),$(SET_UP))
# Results that bench-compare sets side by side
OLD ?= docs/results/bench
NEW ?= outputs/bench
# Further keys of the runs with a policy: make figure2 ETF="etf.threshold=0.95"
ETF ?=

.DEFAULT_GOAL := help
# Parts share runs, and each already uses all cores
.NOTPARALLEL:
BIN := .venv/bin
WINGS := $(notdir $(wildcard conf/paper/*))
FIRST := figure1 figure2 figure3 figure4 table1 table2 controls controls_vit
HOW = --profile $(PROFILE) --output $(OUTPUT) $(if $(DATASET),--dataset $(DATASET)) $(if $(SEEDS),--seeds $(SEEDS)) \
	$(if $(EPOCHS),--epochs $(EPOCHS)) $(if $(JOBS),--jobs $(JOBS)) $(if $(STACK),--stack $(STACK)) \
	$(foreach key,$(ETF),--policy $(key)) $(ARGS)
.PHONY: help setup install again demo train test test-fast test-versions test-slurm chaos fuzz lint docs docs-config audit bench bench-compare bench-statistics gpu gpu-bundle paper papers claims claims_depth clean \
	$(FIRST) $(WINGS)

help:  ## list the targets
	@grep -hE '^[a-z0-9_ -]+:.*##' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'
	@printf '  make %-10s a part of the first paper\n' $(FIRST)
	@printf '  make %-10s the paper of this name: train, draw, judge, restartable\n' $(WINGS)

setup: .venv/.ready  ## create .venv and install the pinned requirements; TORCH=cpu: without GPU libraries

# Only where a requirement changed, not where a checkout wrote the same again: commands would vanish under running work.
REQUIRED = { cat pyproject.toml requirements.lock; printf '%s' '$(BACKEND)'; }
# Before anything is changed. Other builds of torch need libraries of their own, which the lock lacks.
ONE_TORCH = $(if $(filter-out cpu,$(BACKEND)),$(error TORCH: expected cpu, or nothing for PyPI's torch; got $(BACKEND) \
	(make clean forgets what .venv was set up with)))
.venv/.ready: pyproject.toml requirements.lock $(if $(filter-out $(SET_UP),$(TORCH)),again) | $(UV)
	$(ONE_TORCH)
	@$(REQUIRED) | cksum | cmp -s - $@ || $(MAKE) --no-print-directory install
	@$(REQUIRED) | cksum > $@

again:

# The lock holds hashes of PyPI's torch. For the CPU alone torch's own index has torch and torchvision, of the same
# versions, with other hashes; what only PyPI's torch needs is left out. One that fails leaves no .ready.
OF_PYPI := ^(torch|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z]+)==
install: | $(UV)
	$(ONE_TORCH)
	@rm -f .venv/.ready
	$(UV) venv --quiet --allow-existing --python '>=3.11' .venv
ifeq ($(BACKEND),)
	$(UV) pip sync --quiet --python $(PY) --require-hashes --compile-bytecode requirements.lock
else
	@mkdir -p build
	awk '/^[A-Za-z0-9]/ { skip = /$(OF_PYPI)/ } !skip' requirements.lock > build/without_torch.lock
	$(UV) pip sync --quiet --python $(PY) --require-hashes --compile-bytecode build/without_torch.lock
	$(UV) pip install --quiet --python $(PY) --compile-bytecode --no-deps --torch-backend $(BACKEND) \
		$$(grep -oE '^(torch|torchvision)==[^ ]+' requirements.lock)
	@echo $(BACKEND) > .venv/.torch
endif
	$(UV) pip install --quiet --python $(PY) --no-deps --editable .

.uv/bin/uv:
	python3 -m venv .uv
	.uv/bin/python -m pip install --quiet uv

demo: setup  ## digits, five policies, three seeds: figures and a table in two minutes
	$(PY) -m nclab.train --multirun experiment=demo output_root=$(OUTPUT) skip_invalid=true \
		etf=none,last_k,adaptive etf.k=1,2,3 seed=0,1,2
	$(BIN)/nclab-draw figure1 $(OUTPUT)/demo --out $(OUTPUT)/figures/demo_figure1
	$(BIN)/nclab-draw figure2 $(OUTPUT)/demo --out $(OUTPUT)/figures/demo_figure2
	$(BIN)/nclab-draw summary $(OUTPUT)/demo --out $(OUTPUT)/figures/demo_summary
	@printf 'pictures:\n'; ls $(OUTPUT)/figures/demo_figure1.* $(OUTPUT)/figures/demo_figure2.*

train: setup  ## one run: make train ARGS="dataset=mnist5k etf=last_k etf.k=2"
	$(PY) -m nclab.train $(ARGS)

$(WINGS): setup
	$(BIN)/nclab-paper run $@ $(if $(PART),--part $(PART)) $(HOW)

papers: $(WINGS)  ## every wing: PROFILE=smoke|cpu|gpu_hour|paper

paper: simplex_etf  ## the first paper, as make simplex_etf

$(FIRST): setup
	$(BIN)/nclab-paper run simplex_etf --part $@ $(HOW)

claims: setup  ## judge the claims of the first paper by the runs that are there: a page in OUTPUT/simplex_etf/report
	$(BIN)/nclab-paper judge simplex_etf --output $(OUTPUT)

claims_depth: setup  ## judge the claims of the depth study likewise: a page in OUTPUT/depth/report
	$(BIN)/nclab-paper judge depth --output $(OUTPUT)

# Libraries that only benchmarks are set against; what they need in turn is there already.
PEERS := timm==1.0.31
bench: setup | $(UV)  ## measuring, training, networks, layers, seeds, growth: ratios in one run, beside the machine's limits
	@said=$$($(UV) pip install --quiet --python $(PY) --no-deps $(PEERS) 2>&1) \
		|| echo "bench: $(PEERS) was not installed: $$(echo "$$said" | tail -n 1)"
	$(PY) scripts/bench_measure.py
	$(PY) scripts/bench_train.py
	$(PY) scripts/bench_networks.py
	$(PY) scripts/bench_layers.py --threads 1
	$(PY) scripts/bench_seeds.py --threads 1
	$(PY) scripts/bench_growth.py
	$(PY) scripts/bench_table.py

bench-compare: setup  ## which ratios got worse between two results: OLD=FOLDER NEW=FOLDER
	$(PY) scripts/bench_compare.py $(OLD) $(NEW) $(ARGS)

gpu: setup  ## acceptance on one GPU: one table in outputs/gpu, at most ten minutes; without a GPU a minute that says so
	$(PY) -m nclab.bench.gpu $(ARGS)

gpu-bundle: setup  ## one folder for a GPU machine without internet: wheels, data, install.sh; pieces of at most 60 MiB
	$(PY) scripts/gpu_bundle.py $(ARGS)

bench-statistics: setup  ## how often the rules behind the verdicts err, by simulation: docs/results/bench/statistics.md
	$(PY) scripts/bench_statistics.py $(ARGS)

chaos: setup  ## kill runs at 100 random moments, cut the power under others (root), kill a sweep of 200; compare bit for bit
	$(PY) scripts/chaos.py $(ARGS)

fuzz: setup  ## 500 command lines drawn at random, right and wrong ones: none may end in a traceback, hang or leave litter
	$(PY) scripts/fuzz.py $(ARGS)

test: setup  ## run the tests
	$(PY) -m pytest -n 2 $(ARGS)

test-fast: setup  ## run the core of the tests: a minute
	$(PY) -m pytest -n 2 -m fast $(ARGS)

test-versions: | $(UV)  ## the core of the tests with the lowest and the newest versions that may be, and on Python 3.13: downloads
	scripts/test_versions.sh $(UV) $(ARGS)

test-slurm: setup  ## sweeps on a real Slurm on this machine, which preempts, cancels and loses them: ten minutes, root
	$(PY) -m pytest -n 0 -m slurm -rs -s tests/test_slurm.py $(ARGS)

lint: setup  ## check lint, format and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

docs: setup  ## the site in build/site, API pages included; no internet; a broken link is an error
	$(PY) -m sphinx --fail-on-warning --keep-going --quiet -b html -c docs/site -d build/doctrees docs build/site
	@echo build/site/README.html

docs-config: setup  ## write docs/configuration.md and the comments of conf/ from the settings dataclasses
	$(PY) -m nclab.config.docs

audit: | $(UV)  ## known vulnerabilities of the pinned requirements; fails where they cannot be looked up
	@$(UV) tool run pip-audit@2.10.1 --strict --requirement requirements.lock --require-hashes --disable-pip \
		--progress-spinner off || { echo "audit: not passed: the lines above name what is vulnerable, or what the" \
		"vulnerability service gave no answer about" >&2; exit 1; }

clean:  ## remove the environment and caches, never outputs/ or data/
	rm -rf .venv .uv .versions .pytest_cache .ruff_cache .mypy_cache build dist
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
