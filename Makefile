# One virtual environment, made on first use. PYTHON=python3.12 chooses another interpreter.
PYTHON ?= python3
BENCH ?=
VENV := .venv
PY := $(VENV)/bin/python

.PHONY: help quickstart demo test lint check bench peers clean
.DEFAULT_GOAL := help

help:
	@echo "make quickstart          the whole study in miniature: CPU, minutes; runs/quickstart/report.html"
	@echo "make demo                a report from bundled simulated counts: seconds; runs/demo/report.html"
	@echo "make test                format, lint, types and tests, as CI runs them"
	@echo "make check               the long checks: smokes of every study, real models against HF"
	@echo "make bench [BENCH=name]  measure; bench/out/NAME.json"
	@echo "make peers               install what make bench compares with (torch, tunix)"
	@echo "make clean               remove what make made, runs/ excepted"

quickstart: $(VENV)/.core
	JAX_PLATFORMS=$${JAX_PLATFORMS:-cpu} $(PY) main.py --config=configs/quickstart.py --workdir=runs/quickstart

demo: $(VENV)/.core
	$(PY) main.py --config=configs/demo.py --workdir=runs/demo

test: lint
	JAX_PLATFORMS=cpu $(PY) -m pytest -m "not check" -n 2 --dist loadfile

lint: $(VENV)/.dev
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m pyright

check: $(VENV)/.parity
	JAX_PLATFORMS=cpu $(PY) -m pytest -m check

bench: $(VENV)/.core
	$(PY) -m bench.run $(BENCH)

peers: $(VENV)/.bench

clean:
	rm -rf $(VENV) bench/out build dist .pytest_cache .ruff_cache *.egg-info

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "rlvr_jax needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) --version 2>&1 | head -n 1)."; \
	  echo "Name another one: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# The stamps say which extras of this pyproject.toml are installed.
$(VENV)/.core: pyproject.toml | $(PY)
	$(PY) -m pip install --disable-pip-version-check -q -e .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(PY)
	$(PY) -m pip install --disable-pip-version-check -q -e '.[dev]'
	@touch $@ $(VENV)/.core

$(VENV)/.parity: pyproject.toml | $(PY)
	$(PY) -m pip install --disable-pip-version-check -q -e '.[dev,parity]'
	@touch $@ $(VENV)/.core $(VENV)/.dev

$(VENV)/.bench: pyproject.toml | $(PY)
	$(PY) -m pip install --disable-pip-version-check -q -e '.[bench]'
	@touch $@ $(VENV)/.core
