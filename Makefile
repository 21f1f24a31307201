# Two commands: `make sweep` trains the weight-decay experiment, `make test` checks everything.
# CONFIG=configs/lr.py picks another experiment; ARGS="--config.train.epochs=3" is passed through.

CONFIG ?= configs/wd.py
ARGS ?=
PYTHON ?= python3
BIN := .venv/bin

.PHONY: sweep test lint clean

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e .
	@touch $@

# torch goes first: what depends on it would otherwise choose a build of its own.
.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev,torch]'
	@touch $@

sweep: .venv/installed
	$(BIN)/python -m hpjax.main --config=$(CONFIG) $(ARGS)

test: .venv/installed-dev
	$(BIN)/python -m pytest $(ARGS)

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

clean:
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache
