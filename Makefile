# make demo and make test each work on a fresh machine with Python 3.11, git and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SYSTEMS := factual-recall nhl reaction-kinetics # the longest trial first
export MUJOCO_GL ?= disable

.PHONY: demo test check docs evidence bench clean
.DELETE_ON_ERROR:

demo: $(VENV)/.demo
	@$(BIN)/interplay run $(SYSTEMS) --preset cpu || test $$? -eq 1 # 1: a claim fails, which is a result
	@$(BIN)/interplay report

test: check
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.test
	$(BIN)/mkdocs build --strict

evidence: $(VENV)/.demo
	$(BIN)/interplay run --all --preset cpu --evidence evidence || test $$? -eq 1
	$(BIN)/python docs/readme.py

bench: $(VENV)/.test
	$(PIP) install --constraint constraints.txt --editable '.[bench]'
	$(PIP) install --constraint constraints.txt --no-deps spikingjelly norse
	$(BIN)/python benchmarks/record.py

clean:
	rm -rf $(VENV) site interplay-gallery .pytest_cache .mypy_cache .ruff_cache

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python pyproject.toml constraints.txt
	@echo "installing Interplay (some minutes the first time) ..."
	$(PIP) install --constraint constraints.txt --editable '.[llm]'
	@touch $@

# The tests drive a real browser: Debian's Chromium, installed here where that is allowed.
$(VENV)/.test: $(BIN)/python pyproject.toml constraints.txt
	@echo "installing Interplay with everything its tests need (some minutes the first time) ..."
	$(PIP) install --constraint constraints.txt --editable '.[all]'
	@command -v chromium chromium-browser google-chrome >/dev/null \
		|| { test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
		     && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; } \
		|| echo "Chromium is missing: install it (Debian: apt-get install chromium), or the test of the gallery will fail"
	@touch $@
