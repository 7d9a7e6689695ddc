# make demo   set up .venv, caption the example recordings with the built-in checkpoint
# make test   set up .venv with the development extras, then lint, types and the test suite
#
# TORCH: what pip installs for PyTorch. For a GPU build or another index, for example:
#   make demo TORCH="torch --index-url https://download.pytorch.org/whl/cu126"

PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin

.PHONY: demo test lint types clean

demo: .venv/.demo
	$(BIN)/python scripts/demo.py

test: lint types
	$(BIN)/python -m pytest -n auto --dist loadfile

lint: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.test
	$(BIN)/mypy

.venv/.torch:
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH)
	touch $@

.venv/.demo: .venv/.torch pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	touch $@

.venv/.test: .venv/.torch pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@ .venv/.demo

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache
