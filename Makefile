# make demo   set up .venv, caption the example recordings with the built-in checkpoint
# make test   set up .venv with the development extras, then lint, types and the test suite
# make test-laion-clap   the adapter of laion-clap against the real package (tests/README.md)
#
# TORCH: what pip installs for PyTorch. For a GPU build or another index, for example:
#   make demo TORCH="torch --index-url https://download.pytorch.org/whl/cu126"

PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin

.PHONY: demo test test-laion-clap lint types clean

demo: .venv/.demo
	$(BIN)/python scripts/demo.py

test: lint types
	$(BIN)/python -m pytest -n auto --dist loadfile

# laion-clap needs numpy below 2 (so at most Python 3.12) and a torch that fits its torchvision.
LAION_ENV ?= .venv-laion-clap
LAION_TORCH ?= torch==2.11.0 torchvision==0.26.0 torchaudio==2.11.0
LAION_CACHE = $(abspath $(LAION_ENV))/huggingface

test-laion-clap: $(LAION_ENV)/.ready
	HF_HOME=$(LAION_CACHE) HF_HUB_OFFLINE=1 $(LAION_ENV)/bin/python -m pytest \
		tests/laion_clap --confcutdir tests/laion_clap

$(LAION_ENV)/.ready: pyproject.toml tests/laion_clap/make_hub_cache.py
	$(PYTHON) -m venv $(LAION_ENV)
	echo '*' > $(LAION_ENV)/.gitignore
	$(LAION_ENV)/bin/pip install --quiet --disable-pip-version-check $(LAION_TORCH)
	$(LAION_ENV)/bin/pip install --quiet --disable-pip-version-check \
		laion-clap==1.1.7 "numpy<2" transformers==5.23.0 pytest -e .
	$(LAION_ENV)/bin/python tests/laion_clap/make_hub_cache.py $(LAION_CACHE)
	touch $@

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
