VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

.PHONY: serve test slow check bench guard docs prices constraints clean

serve: $(VENV)/installed
	$(BIN)/sluiceway serve

# Real sockets, real processes, real time: what fails while the machine is busy with something else is tried once more.
# A signal does not end a test that hangs inside the event loop; a thread ends its process, and xdist starts another.
PYTEST := $(BIN)/python -m pytest -o addopts="-q --strict-markers --import-mode=importlib"

test: $(VENV)/tested
	$(PYTEST) -n 2 -o timeout_method=thread -m "not slow" || $(PYTEST) -m "not slow" --last-failed

slow: $(VENV)/tested
	$(PYTEST) -m slow || $(PYTEST) -m slow --last-failed

check: $(VENV)/tested
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Whoever is absent is left out, with a message. Options: make bench WITH="-s json:16 -r 5".
bench: $(VENV)/benched
	$(BIN)/python -m benchmarks $(WITH)

guard: $(VENV)/benched
	$(BIN)/python -m benchmarks guard

# What models cost today, into the package's table.
prices: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[prices]"
	$(BIN)/python -m gateway.cli.prices > build-prices.json
	mv build-prices.json gateway/prices.json

docs: $(VENV)/installed
	$(BIN)/python -m gateway.cli.parameters > docs/parameters.md
	$(BIN)/python -m gateway.cli.reference > docs/configuration.md
	$(BIN)/sluiceway schema > gateway.schema.json

constraints:
	$(PYTHON) -m venv build/constraints
	build/constraints/bin/pip install --quiet --disable-pip-version-check pip-tools
	echo "# The versions that the image is built from, of every extra; 'make constraints' writes them anew." > build/constraints.txt
	build/constraints/bin/pip-compile --quiet --upgrade --strip-extras --allow-unsafe --no-annotate --no-header \
	  --no-emit-index-url --no-emit-find-links --build-deps-for wheel \
	  --extra aws --extra google --extra redis --extra otel --output-file - setup.cfg >> build/constraints.txt
	mv build/constraints.txt deploy/constraints.txt

clean:
	rm -rf $(VENV) build dist *.egg-info

$(VENV)/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	# What Python 3.11 puts into every venv; nothing here needs it.
	$(BIN)/pip uninstall --quiet --yes setuptools 2>/dev/null || true
	touch $@

$(VENV)/tested: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[test]"
	touch $@

$(VENV)/benched: $(VENV)/installed
	command -v nginx && command -v haproxy && command -v gcc || test $$(id -u) != 0 || { apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nginx-light haproxy gcc libc6-dev; } || true
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[bench]"
	touch $@
