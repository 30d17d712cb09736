# `make demo` and `make test` set up everything on first use and do nothing the second time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The GPU build of onnxruntime where there is an NVIDIA driver, else the CPU build: they exclude each other.
ORT := $(if $(shell command -v nvidia-smi),onnx-gpu,onnx)
# The versions that are installed; .ci/versions/oldest.txt on Python 3.10.
CONSTRAINTS ?= constraints.txt
DATA ?=
ARGS ?=
INSTALL = $(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS)

.PHONY: help demo test check bench versions release hooks clean
.DEFAULT_GOAL := help

help:  ## what there is to make
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(VENV)/ready: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "fastloaa needs Python 3.10 or newer, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --upgrade pip setuptools wheel
	$(INSTALL) --no-build-isolation --editable '.[$(ORT),words,dev]'
	touch $@

demo: $(VENV)/ready  ## adapt a vision transformer to sound, export it, use it; DATA=folder for your own recordings
	$(BIN)/python examples/demo.py $(if $(DATA),--data '$(DATA)')

test: $(VENV)/ready  ## all tests, slow ones too
	$(BIN)/python -m pytest

check: $(VENV)/ready  ## lint, format, types (of the installed wheel)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/types build/lib && $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --target build/types .
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml --cache-dir ../mypy --python-executable ../../$(BIN)/python -p fastloaa

bench: $(VENV)/ready  ## time the backends against each other
	$(BIN)/python bench/speed.py

versions: $(VENV)/ready  ## the suite under the oldest, a middle and the newest versions; ARGS="..." go to pytest
	$(INSTALL) --group versions
	$(BIN)/python .ci/versions.py $(ARGS)

release: $(VENV)/ready  ## build wheel and sdist, check them, and try the wheel where nothing else is installed
	$(INSTALL) --group release
	rm -rf dist build/lib build/release
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(PYTHON) -m venv build/release
	build/release/bin/python -m pip install --quiet --constraint $(CONSTRAINTS) dist/*.whl
	cd build && release/bin/python ../.ci/smoke.py core
	build/release/bin/python -m pip install --quiet --constraint $(CONSTRAINTS) "$$(echo dist/*.whl)[train,onnx]"
	cd build && release/bin/python ../.ci/smoke.py extras

hooks: $(VENV)/ready  ## lint and format whatever is committed from now on
	$(INSTALL) --group hooks
	$(BIN)/pre-commit install

clean:  ## remove what make made
	rm -rf $(VENV) .tox build dist runs *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks
