# Everything from a fresh clone, with nothing but Python >= 3.10 and make: `make demo`, `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := irshap passes lowering tests
VIEW := build/types

.PHONY: bench clean demo docs format help lint quick sbom test test-oldest test-wheel types view

help:
	@echo "make demo | quick | test | test-oldest | test-wheel | lint | types | format | docs | bench | sbom | clean"

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

# The tests with the oldest versions that pyproject.toml allows, on the oldest Python.
OLDEST_PYTHON ?= python3.10
OLDEST := build/oldest
test-oldest:
	$(OLDEST_PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(OLDEST)/bin/uv pip install --quiet --python $(OLDEST)/bin/python --resolution lowest-direct -e ".[test,images]"
	$(OLDEST)/bin/python -m pytest -n 2

# The wheel, installed alone and used away from this folder.
CLEAN := build/installed
test-wheel:
	rm -rf build/wheel build/lib
	$(PYTHON) -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/wheel .
	$(PYTHON) -m venv --clear $(CLEAN)
	$(CLEAN)/bin/python -m pip install --quiet --disable-pip-version-check build/wheel/irshap-*.whl
	away=$$(mktemp -d) && cd "$$away" && "$(CURDIR)/$(CLEAN)/bin/irshap" doctor && \
		"$(CURDIR)/$(CLEAN)/bin/irshap" demo && rm -r "$$away"

# What is installed beside irshap without extras, as a CycloneDX list: build/sbom.cdx.json.
sbom: test-wheel
	$(PYTHON) -m venv --clear build/sbom
	build/sbom/bin/python -m pip install --quiet --disable-pip-version-check "cyclonedx-bom>=7"
	$(CLEAN)/bin/python -m pip uninstall --quiet --yes pip setuptools
	build/sbom/bin/cyclonedx-py environment --pyproject pyproject.toml --output-file build/sbom.cdx.json $(CLEAN)/bin/python

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +
