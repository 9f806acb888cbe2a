# Two commands do everything on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test test-full check format tables benchmarks clean

demo: $(INSTALLED)
	$(BIN)/python scripts/demo.py

test: check
	$(BIN)/python -m pytest -n 2 -m "not full"

test-full: check
	$(BIN)/python -m pytest -n 2

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Measures every row of the tables again (needs UNBLUR_DATA), then writes them into README and docs.
benchmarks: $(INSTALLED)
	$(BIN)/python benchmarks/run.py
	$(BIN)/python scripts/fill_tables.py

tables: $(INSTALLED)
	$(BIN)/python scripts/fill_tables.py

clean:
	rm -rf .venv build dist demo .mypy_cache .ruff_cache .pytest_cache

# Installed again only where what is to be installed has changed.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
