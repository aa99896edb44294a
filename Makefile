PYTHON ?= python3
SEEDS ?= 0 1 2
PY := .venv/bin/python
RUN := runs/$(shell date +%Y%m%d-%H%M%S)
ifneq ($(wildcard ../shared),)
export REALFAKE_SHARED ?= $(abspath ../shared)
endif

.PHONY: help demo test slow lint types format cnn audit readme benchmarks

help: ## show this list
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*##/\t/' | expand -t 12

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --editable '.[dev]'
	touch $@

demo: .venv/installed ## set up, and train on the embedded demo set: offline, minutes
	$(PY) train.py --config recipes/demo.yaml --output_dir $(RUN)-demo

test: .venv/installed ## set up, and pass the tests
	$(PY) -m pytest

slow: .venv/installed ## the tests that take long
	$(PY) -m pytest -m slow

lint: .venv/installed ## style
	.venv/bin/ruff check
	.venv/bin/ruff format --check

types: .venv/installed ## static types
	.venv/bin/mypy

format: .venv/installed ## apply the style
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

cnn: .venv/installed ## the paper's CNN on all of CIFAKE, once for each of SEEDS, and its results
	for seed in $(SEEDS); do $(PY) train.py --config recipes/cifake_cnn.yaml --seed $$seed --output_dir $(RUN)-cifake-cnn/seed-$$seed || exit; done
	$(PY) -m realfake_hf.publish.results --runs $(SEEDS:%=$(RUN)-cifake-cnn/seed-%) --output_file results/cifake_cnn.json --model_dir space/models/cifake-cnn

audit: .venv/installed ## the duplicates in CIFAKE
	$(PY) -m realfake_hf.data.audit --data cifake --output_file results/cifake_audit.json

benchmarks: .venv/installed ## speed and memory beside named alternatives
	$(PY) -m benchmarks.training_throughput --output_file results/benchmark_training.json
	$(PY) -m benchmarks.data_ready --output_file results/benchmark_data.json

readme: .venv/installed ## the README's tables from results/
	$(PY) -m realfake_hf.publish.readme
