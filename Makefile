# make demo: render the example, then serve the page.   make test: the whole suite.   make docs: the pages in docs/ as a
# site, in build/site.   Each sets up .venv first.
# make wheel: build the package, install it into an environment of its own and use it there.
# Tests of one file, in one process: make test PYTEST_OPTIONS="-n 0 tests/test_camera.py".
# Another Python: make demo PYTHON=python3.12.   More options for pip: make demo PIP_OPTIONS="..." or pip's own
# PIP_* variables (a machine without an NVIDIA GPU saves gigabytes with PyTorch's CPU packages, see README.md).

PYTHON ?= python3
PIP_OPTIONS ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install $(PIP_OPTIONS)
RUNTIME := $(VENV)/.runtime-installed
TESTING := $(VENV)/.testing-installed
DOCUMENTING := $(VENV)/.documenting-installed
EXAMPLE := outputs/example.mp4
PACKAGE := $(shell find sdtalk -name "*.py" -o -name "*.safetensors" -o -name "config.json" 2>/dev/null)

.PHONY: demo test lint types docs wheel clean
.DELETE_ON_ERROR:

demo: $(EXAMPLE)
	@echo "The example is in $(EXAMPLE). Starting the page; Ctrl-C ends it."
	$(BIN)/sdtalk demo

test: $(TESTING)
	$(BIN)/python -m pytest -n 2 --dist loadgroup $(PYTEST_OPTIONS)

lint: $(TESTING)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(TESTING)
	$(BIN)/mypy sdtalk

docs: $(DOCUMENTING)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

wheel: | $(BIN)/python
	$(BIN)/python scripts/check_wheel.py -- $(PIP_OPTIONS)

clean:
	rm -rf $(VENV) outputs build

$(EXAMPLE): examples/eileen_collins.png examples/sense_and_sensibility.wav $(PACKAGE) | $(RUNTIME)
	$(BIN)/sdtalk examples/eileen_collins.png examples/sense_and_sensibility.wav -o $@

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || \
		{ echo "$(PYTHON) is not installed. On Debian or Ubuntu: sudo apt-get install python3 python3-venv"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$$($(PYTHON) --version) is too old: Python 3.11 or newer is needed. If you have one: make PYTHON=python3.12 ..."; \
		exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make virtual environments. On Debian or Ubuntu: sudo apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)

$(RUNTIME): requirements.txt pyproject.toml | $(BIN)/python
	$(PIP) -r requirements.txt
	$(PIP) --no-deps --editable .
	touch $@

$(TESTING): requirements-test.txt requirements-training.txt $(RUNTIME)
	$(PIP) -r requirements-test.txt
	touch $@

$(DOCUMENTING): requirements-docs.txt $(RUNTIME)
	$(PIP) -r requirements-docs.txt
	touch $@
