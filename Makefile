# `make lab` sets everything up and opens JupyterLab on the quickstart; `make test` sets everything up and runs the tests.
# Every target may be repeated: set-up is done again only when pyproject.toml or scripts/ changed.

# The first of these that is Python 3.11 to 3.13; or say it: make lab PYTHON=/path/to/python3.12
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
# What to set up; vLLM comes where it runs. On a small machine: make lab ENGINES=llamacpp
ENGINES ?= llamacpp vllm
VENV := .venv
BIN := $(VENV)/bin
# Two files at a time, each on its half of the cores (tests/conftest.py).
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

FAST := not slow and not browser and not gpu and not soak
ALL := not gpu and not soak
# `make check test` (as CI does) runs the fast tests once.
TEST := $(if $(filter check,$(MAKECMDGOALS)),(slow or browser) and $(ALL),$(ALL))

.PHONY: lab test demo check lint js soak bench notebooks format clean
.DELETE_ON_ERROR:

lab: $(VENV)/.lab
	$(BIN)/llmlab lab

demo: build/quickstart.html

build/quickstart.html: $(VENV)/.lab notebooks/00_quickstart.ipynb $(shell find llmlab -name '*.py')
	$(BIN)/llmlab demo

check: lint js
	$(PYTEST) -m "$(FAST)"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

js:
	@if ! ls tests/js/*.test.js >/dev/null 2>&1; then echo "No tests in tests/js: nothing for node to run."; \
	elif ! command -v node >/dev/null; then echo "node is not installed: tests/js did not run."; \
	else node --test tests/js/*.test.js; fi

# A browser, its server, a kernel and an engine want all cores: those tests one at a time.
test: $(VENV)/.dev
	$(PYTEST) -m "$(TEST) and not browser"
	$(BIN)/python -m pytest -m "browser and $(ALL)"

soak: $(VENV)/.dev
	$(BIN)/python -m pytest -m soak --timeout 3600

bench: $(VENV)/.dev
	for script in benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

# The newer of each pair wins; outputs and the numbers of runs are not committed.
notebooks: $(VENV)/.dev
	$(BIN)/jupytext --sync notebooks/*.py
	$(BIN)/nbstripout notebooks/*.ipynb

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

# The stamps below stand in the environment they describe: removing it removes them.
$(VENV)/.uv:
	@test -n "$(PYTHON)" || { echo "llmlab needs Python 3.11, 3.12 or 3.13 (with venv), and none is on the PATH:" \
	  "install one, or say where it is: make lab PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9'
	touch $@

$(VENV)/.lab: $(VENV)/.uv pyproject.toml $(wildcard scripts/*.py)
	$(BIN)/python scripts/setup_env.py lab views serve connect gateway $(ENGINES)
	touch $@

$(VENV)/.dev: $(VENV)/.uv pyproject.toml $(wildcard scripts/*.py)
	$(BIN)/python scripts/setup_env.py lab views serve connect gateway labs $(ENGINES) torch dev
	touch $@
