# Everything from a fresh clone, with nothing but Python >= 3.10 and make: `make demo`, `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := irshap passes lowering tests
VIEW := build/types

.PHONY: bench clean demo docs format help lint quick test types view

help:
	@echo "make demo | quick | test | lint | types | format | docs | bench | clean"

# Made again when the dependencies change.  The install is editable: Python sees new files and folders at once.
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "irshap needs Python >= 3.10: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "pip>=22.3"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test]"
	@touch $@

$(VENV)/.bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[bench]"
	@touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/irshap demo

test: lint types
	$(BIN)/python -m pytest -n 2

# While working: all but what takes longer than some seconds.
quick: lint types
	$(BIN)/python -m pytest -n 2 -m "not slow"

lint: $(VENV)/.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(VENV)/.installed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Readers of source can't follow the mapping irshap.passes -> passes/ of an editable install, so they get a view
# made of links in which passes/ and lowering/ stand inside irshap/: always the current files.
view:
	@rm -rf $(VIEW) && mkdir -p $(VIEW)/irshap
	@ln -s "$(CURDIR)"/irshap/* "$(CURDIR)/passes" "$(CURDIR)/lowering" $(VIEW)/irshap/

types: $(VENV)/.installed view
	cd $(VIEW) && "$(CURDIR)/$(BIN)/mypy" --config-file "$(CURDIR)/pyproject.toml" \
		--cache-dir "$(CURDIR)/.mypy_cache" -p irshap

# Into build/docs.  Warnings, such as a broken link or a parameter that doesn't exist, are errors.
docs: $(VENV)/.docs view
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(VENV)/.bench
	$(BIN)/python tests/bench

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +
