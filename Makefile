PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN ?= runs/demo

.PHONY: demo test test-lowest wheels lint format bench gpu docs clean fuzz kill damage soak long

# The environment is made once; the stamp is newer than what it was made from.
# memtax/__init__.py has the version, which the installation copies.
$(VENV)/.installed: pyproject.toml constraints.txt memtax/__init__.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[all,dev]"
	touch $@

demo: $(VENV)/.installed
	HF_HUB_OFFLINE=1 $(BIN)/memtax demo --output $(RUN)

# A worker that crashes ends the run: with "loadfile", xdist waits for ever for one that it started again. Files go out in their
# order, not those of few tests last, as those are the long ones.
test: $(VENV)/.installed
	HF_HUB_OFFLINE=1 HF_EVALUATE_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 $(TESTS)

# The lowest versions that pyproject.toml allows.
test-lowest: pyproject.toml constraints-lowest.txt
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/pip install --quiet --disable-pip-version-check -c constraints-lowest.txt -e ".[lm,report,stats,pii,demo]" pytest pytest-xdist hypothesis
	HF_HUB_OFFLINE=1 HF_EVALUATE_OFFLINE=1 .venv-lowest/bin/python -m pytest -n 2 --dist loadfile --max-worker-restart 0 $(TESTS)

# The package as users install it: the wheel in an empty environment for each extra, or for those of EXTRAS. Installs about 15 GB,
# one environment after another.
wheels: $(VENV)/.installed
	$(BIN)/python tools/wheels.py $(EXTRAS)

# Long forms of what the tests do shortened: fuzzing, kills at random moments, damaged files, and an hour of kills in little memory.
fuzz: $(VENV)/.installed
	HF_HUB_OFFLINE=1 MEMTAX_FUZZ=20000 $(BIN)/python -m pytest tests/solid/test_hostile.py

kill: $(VENV)/.installed
	OMP_NUM_THREADS=1 MEMTAX_KILLS=120 $(BIN)/python -m pytest tests/solid/test_kills.py

damage: $(VENV)/.installed
	OMP_NUM_THREADS=1 MEMTAX_FLIPS=1000 $(BIN)/python -m pytest tests/solid/test_damage.py

# Tests that take a minute or more each.
long: $(VENV)/.installed
	HF_HUB_OFFLINE=1 HF_EVALUATE_OFFLINE=1 MEMTAX_LONG=1 $(BIN)/python -m pytest -m long tests

soak: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python tests/solid/killing.py $(or $(TMPDIR),/tmp)/memtax-soak --kills 56 --minutes 60 --memory 8

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[bench]"
	for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

# Needs a CUDA device; runs in any environment with the dependencies, without installation.
gpu:
	PYTHONPATH=. $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) benchmarks/gpu.py

docs: $(VENV)/.installed
	$(BIN)/python -m mkdocs build --strict

clean:
	rm -rf $(VENV) .venv-lowest build dist site .mypy_cache .ruff_cache .pytest_cache
