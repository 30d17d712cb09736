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

.PHONY: help demo test triton check docs bench versions release hooks clean
.DEFAULT_GOAL := help

help:  ## what there is to make
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(VENV)/ready: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "fastloaa needs Python 3.10 or newer, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --upgrade pip setuptools wheel
	$(INSTALL) --no-build-isolation --editable '.[$(ORT),words,dev]'
	touch $@

# onnxruntime for browsers, of the version that a bundle's page takes; without it the page's tests are skipped.
.PHONY: npm
npm: $(VENV)/ready
	-@$(BIN)/python -c 'from fastloaa.export.bundle.browser import fetch_onnxruntime_web as fetch; fetch("$(VENV)")' 2>&1 | tail -n 1

# NVIDIA's server has packages that exclude ours, so it has an environment of its own.
$(VENV)/triton/ready: .ci/triton.txt
	$(PYTHON) -m venv $(VENV)/triton
	$(VENV)/triton/bin/python -m pip install --quiet --requirement .ci/triton.txt
	touch $@

triton: $(VENV)/triton/ready  ## NVIDIA Triton Inference Server from PyPI (450 MB), for its tests

demo: $(VENV)/ready npm  ## adapt a vision transformer to sound, export it, use it; DATA=folder for your own recordings
	$(BIN)/python examples/demo.py $(if $(DATA),--data '$(DATA)')

# Files of tests are dealt out to as many processes as there are cores, at most four, of one thread each.
test: $(VENV)/ready npm  ## all tests, slow ones too
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

# The package as it is installed, where kernels/ and export/ have the names that users import.
WHEEL = rm -rf build/types build/lib && $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --target build/types .

check: $(VENV)/ready  ## lint, format, types (of the installed wheel)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(WHEEL)
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml --cache-dir ../mypy --python-executable ../../$(BIN)/python -p fastloaa

docs: $(VENV)/ready  ## the site of all pages, in build/docs; warnings are errors
	$(INSTALL) --group docs
	$(WHEEL)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

bench: $(VENV)/ready  ## time the backends against each other
	$(BIN)/python bench/speed.py

versions: $(VENV)/ready  ## the suite under the oldest, a middle and the newest versions; ARGS="..." go to pytest
	$(INSTALL) --group versions
	OMP_NUM_THREADS=1 $(BIN)/python .ci/versions.py $(ARGS)

# Each Python has the wheel alone, then with extras, in an environment that is removed again. uv fetches Pythons that are
# not on the PATH.
PYTHONS := 3.10 3.11 3.12 3.13
PINS = constraints.txt
wheel-3.10: PINS = .ci/versions/oldest.txt
TRIED = build/wheel-$*
TRY = $(BIN)/python -m uv pip install --quiet --python $(TRIED)/bin/python --constraint $(PINS)

.PHONY: $(PYTHONS:%=wheel-%)
$(PYTHONS:%=wheel-%): wheel-%:
	rm -rf $(TRIED)
	$(BIN)/python -m uv venv --quiet --python $* $(TRIED)
	$(TRY) dist/*.whl
	cd build && wheel-$*/bin/python ../.ci/smoke.py core
	$(TRY) "$$(echo dist/*.whl)[train,onnx]"
	cd build && wheel-$*/bin/python ../.ci/smoke.py extras
	rm -rf $(TRIED)

release: $(VENV)/ready  ## build wheel and sdist, check them, and try the wheel on each Python where nothing else is installed
	$(INSTALL) --group release
	rm -rf dist build/lib
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(MAKE) $(PYTHONS:%=wheel-%)

hooks: $(VENV)/ready  ## lint and format whatever is committed from now on
	$(INSTALL) --group hooks
	$(BIN)/pre-commit install

clean:  ## remove what make made
	rm -rf $(VENV) .tox build dist runs *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks
