# Every target does its own set-up: .venv is made once and again when pyproject.toml or constraints.txt change.
PYTHON ?= python3
NAME ?=

BIN := .venv/bin
READY := .venv/.ready
BENCHMARKS = $(filter-out $(addprefix benchmarks/,record.py slow_worker.py recovery_worker.py pp_ocr_job.py minilm_data.py structure_cases.py),$(wildcard benchmarks/*.py))

.PHONY: help demo test test-slow lint types bench docs lines clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' Makefile | expand -t 18

# make itself ends with 2 whenever a command fails; the code of slimline (3: budget not met, 4: can't tell) stands in its
# last line, and running .venv/bin/slimline directly returns it.
demo: $(READY) ## the main job on the bundled network and data, into runs/demo
	$(BIN)/slimline demo --out runs/demo

test: $(READY) ## the tests that are not slow, and the ten that took longest
	$(BIN)/pytest -m "not slow" --durations=10

test-slow: $(READY) ## the slow tests
	$(BIN)/pytest -m slow --durations=10

lint: $(READY) ## ruff: rules and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY) ## mypy, strict
	$(BIN)/mypy --strict src

bench: $(READY) ## one benchmark (NAME=demo), or all of them, into benchmarks/results
	@set -e; for file in $(if $(NAME),benchmarks/$(NAME).py,$(BENCHMARKS)); do echo "$$file"; $(BIN)/python $$file; done

docs: $(READY) ## the figures of README.md and docs/, and the cards of methods, from benchmarks/results
	$(BIN)/python -m tools.readme_figures
	$(BIN)/python -m tools.method_cards

lines: ## lines, long functions and growth, per folder
	@$(PYTHON) tools/lines.py

clean: ## remove caches and built packages; keeps .venv, runs/ and benchmarks/results
	rm -rf .mypy_cache .pytest_cache .ruff_cache dist build/lib build/bdist.* src/*.egg-info
	find src tests benchmarks tools examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else \
	    "slimline needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": run make PYTHON=python3.11")'
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@echo "Installing into .venv: a few minutes the first time."
	$(BIN)/pip install --disable-pip-version-check --no-input -c constraints.txt -e '.[openvino,keras,tensorflow,transformers,tensorboard,dev]'
	@touch $@
