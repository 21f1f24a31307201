# Two commands: `make sweep` trains the weight-decay experiment, `make test` checks everything
# but what takes long (`make test-all`).
# CONFIG=configs/lr.py picks another experiment; ARGS="--config.train.epochs=3" is passed through
# (to pytest by `make test`: ARGS="-k config").

CONFIG ?= configs/wd.py
ARGS ?=
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: sweep test test-all faults gpu-compile docs lint clean

sweep: .venv/installed
	$(BIN)/python -m hpjax.main --config=$(CONFIG) $(ARGS)

test: .venv/installed-dev
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)

# What takes minutes each, too.
test-all: .venv/installed-dev
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile -m 'not benchmark' $(ARGS)

# Half an hour: kills, full disks, bad inputs and a soak; writes what came out into RELIABILITY.md.
faults: .venv/installed-dev
	$(BIN)/python -m pytest tests/faults -m 'not benchmark' --kills=50 --inputs=500 --starts=100 --soak=180 $(ARGS)

# XLA's compiler for CUDA (132 MB) compiles the standard workloads for a GPU; it needs none, and times nothing.
gpu-compile: .venv/installed .gpu-plugin/installed
	$(BIN)/python benchmarks/gpu_compile.py --plugin=$(CURDIR)/.gpu-plugin $(ARGS)
	$(BIN)/python benchmarks/report.py

# The documentation, into site/; a warning is an error.
docs: .venv/installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

clean:
	rm -rf .venv .gpu-plugin build site *.egg-info .pytest_cache .ruff_cache .hypothesis

# Stamps: a second call installs nothing.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hpjax needs Python 3.11 or newer: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --editable .
	@touch $@

# torch first: what depends on it then keeps the build that is there.
.venv/installed-dev: .venv/installed
	$(PIP) torch
	$(PIP) --editable '.[dev,docs,hub,mlflow,onnx,ray,torch,wandb]'
	@touch $@

# In a folder of its own: jax would look for a GPU wherever it finds the plugin. Of jaxlib's version.
.gpu-plugin/installed: constraints.txt
	rm -rf .gpu-plugin
	version=$$(sed -n 's/^jaxlib==//p' constraints.txt) && $(PIP) --no-deps --target .gpu-plugin \
		jax-cuda13-plugin==$$version jax-cuda13-pjrt==$$version
	@touch $@
