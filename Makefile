# Every target sets up what it needs; nothing here asks a question. `make help` lists them.

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast test-slow test-adapters soak suites check format bench bench-envs \
  bench-data bench-training docs goldens results recipe-tabletop clean

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
# A file's tests stay in one process, with what they share: an export is made once, not four times.
# A process that dies ends the run, which says in which test: xdist, which gives all of its files to
# the others again, those that were done too, may then wait for ever. Files go out in the order of
# tests/conftest.py, whole commands first; by themselves they would by their number of tests.
PARALLEL := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder --max-worker-restart 0
# pyright looks on the network for a newer version of itself unless told not to.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

help:  ## list the targets
	@sed -n 's/^\([a-z%-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-18s%s\n", $$1, $$2}'

setup:  ## leave the tested environment in .venv (PYTHON=python3.12 and TORCH_INDEX=URL choose)
	@PYTHON="$(PYTHON)" TORCH_INDEX="$(TORCH_INDEX)" sh scripts/setup.sh

demo: setup  ## demonstrations to closed-loop success: the whole path, with a report at its end
	$(BIN)/python -m loopdit.eval.demo

test: setup  ## everything that needs neither a GPU nor minutes
	$(PYTEST) $(PARALLEL) -m "not slow and not gpu and not adapters and not soak"

test-fast: setup  ## the quick part of `test`: no whole commands, no other processes
	$(PYTEST) $(PARALLEL) -m "not slow and not gpu and not adapters and not soak and not system"

test-slow: setup  ## what takes minutes
	$(PYTEST) -m "slow and not gpu and not adapters and not soak"

soak: setup  ## a hundred clients of one server for an hour (MINUTES=5 for less): memory stays flat
	SOAK_MINUTES="$(or $(MINUTES),60)" $(PYTEST) -m soak -s tests/deploy/soak

test-adapters: setup  ## with the packages of public suites and formats, in environments of their own: minutes
	sh scripts/suites.sh
	sh scripts/readers.sh
	sh scripts/lerobot_env.sh
	$(PYTEST) -m adapters

check: setup  ## lint, format, types, and which folder may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: setup  ## what `check` would have changed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup  ## latency of the shipped policy for every loop count and back end
	$(BIN)/policy-bench out=outputs/bench

bench-envs: setup  ## speed of the environments beside raw MuJoCo (and robosuite, where it is made)
	$(BIN)/python -m loopdit.eval.env_bench out=outputs/bench-envs

bench-data: setup  ## speed of reading training windows, beside a raw memory map and LeRobot's reader
	$(BIN)/python scripts/bench_windows.py

bench-training: setup  ## policy-train's speed, beside a bare loop over tensors in memory
	$(BIN)/python scripts/bench_training.py

docs: setup  ## write again what docs/ has from the program: commands.md and rollout.png
	$(BIN)/python scripts/command_page.py
	$(BIN)/python scripts/rollout_picture.py

goldens: setup  ## write the format goldens again; review the diff, it is a format change
	@for script in tests/goldens/make_*.py tests/envs/make_*.py; do $(BIN)/python $$script || exit 1; done

# Demonstrations of each task; the shipped policy learns from all of them.
TABLETOP := reach:1000 button:1000 drawer:1000 lift:3000 stack:4000 push:2000 place:2000

recipe-tabletop: setup  ## the shipped policy: collect seven tasks, train, export, evaluate each
	@for each in $(TABLETOP); do \
	  $(BIN)/policy-collect env=$${each%:*} episodes=$${each#*:} \
	    out=outputs/tabletop/$${each%:*}.zarr || exit 1; \
	done
	$(BIN)/policy-train recipe=tabletop
	$(BIN)/policy-export recipe=tabletop
	@for each in $(TABLETOP); do \
	  $(BIN)/policy-eval recipe=tabletop env=$${each%:*} append=true || exit 1; \
	done

recipe-%: setup  ## the same for one task alone: lift, push, place or catch-roll
	$(BIN)/policy-collect recipe=$*
	$(BIN)/policy-train recipe=$*
	$(BIN)/policy-export recipe=$*
	$(BIN)/policy-eval recipe=$*

results: setup  ## measure again what docs/results.md says: hours on 2 cores
	$(BIN)/python scripts/results.py

suites: setup  ## make the environments of the public suites in .suites (SUITE=metaworld for one)
	sh scripts/suites.sh $(SUITE)

clean:  ## remove the environment, builds and caches; outputs/ stays
	rm -rf .venv build dist src/loopdit.egg-info
	rm -rf .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find policy envs datasets deploy eval configs tests scripts src/loopdit -name __pycache__ -prune -exec rm -rf {} +
