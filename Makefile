VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

.PHONY: serve test slow check bench docs clean

serve: $(VENV)/installed
	$(BIN)/sluiceway serve

test: $(VENV)/tested
	$(BIN)/python -m pytest -n 2 -m "not slow"

slow: $(VENV)/tested
	$(BIN)/python -m pytest -m slow

check: $(VENV)/tested
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(VENV)/installed
	$(BIN)/python -m gateway.cli.parameters > docs/parameters.md
	$(BIN)/sluiceway schema > gateway.schema.json

clean:
	rm -rf $(VENV) build dist *.egg-info

$(VENV)/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/tested: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[test]"
	touch $@
