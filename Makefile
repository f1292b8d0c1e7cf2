# What a bare machine needs: Python 3.11 or later, and make. Everything else comes from pip.
PYTHON ?= python3

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq

.PHONY: bench demo test clean

# A shop with all plugins, and a visitor. DEMO_EXIT=1 ends after the summary; DEMO_PORT and DEMO_DIR choose the place.
demo: $(VENV)/.demo
	@$(BIN)/python demo/run.py

# All tests on this interpreter, with real servers that come as wheels, in three processes for two cores, as many tests
# wait for others. The processes have to agree on the names of tests, and so on the order of sets.
# ARGS is for pytest: make test ARGS='-n 0 -k outbox -x'
PROCESSES ?= $(shell $(PYTHON) -c 'import os; cores = os.cpu_count() or 2; print(cores + cores // 2)')
test: $(VENV)/.test
	@PYTHONHASHSEED=0 $(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile $(ARGS)

# What everything costs beside its peers, as a table and as JSON: see benchmarks/README.md. SHORT=1 takes few minutes,
# ROWS='track page-*' chooses rows, DOCS=1 puts the figures of all rows into the docs. COUNT=1 counts instructions
# (AGAINST=earlier.json compares), PROFILE=1 says where time goes.
JSON ?= build/$(if $(COUNT),count,bench).json
bench: $(VENV)/.bench
	@$(BIN)/python -m benchmarks $(if $(SHORT),--short) $(if $(COUNT),--count) $(if $(PROFILE),--profile) \
	  $(if $(AGAINST),--against $(AGAINST)) --json $(JSON) $(ROWS)
	@$(if $(DOCS),$(BIN)/python -m benchmarks --docs $(JSON))

clean:
	rm -rf $(VENV) .demo .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- one environment for all targets; a file in it says that a step is done ---

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'Python 3.11 or later is needed, and "$(PYTHON)" is not that. Try: make $(MAKECMDGOALS) PYTHON=python3.13' >&2; \
	  exit 1; }
	@echo '==> Making a virtual environment in $(VENV)'
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.host: $(VENV)/.made pyproject.toml $(wildcard plugins/*/pyproject.toml)
	@echo '==> Installing the host and its plugins from this tree (a minute, once)'
	@$(PIP) install -e '.[bots]' $(foreach file,$(wildcard plugins/*/pyproject.toml),-e ./$(dir $(file)))
	@touch $@

$(VENV)/.demo: $(VENV)/.host demo/requirements.txt
	@echo '==> Installing what only the demo needs'
	@$(PIP) install -r demo/requirements.txt
	@touch $@

$(VENV)/.test: $(VENV)/.host
	@echo '==> Installing what the tests need'
	@$(PIP) install --upgrade 'pip>=25.1'
	@$(PIP) install --group test
	@touch $@

$(VENV)/.bench: $(VENV)/.host benchmarks/requirements.txt
	@echo '==> Installing what the host is measured beside'
	@$(PIP) install -r benchmarks/requirements.txt
	@touch $@
