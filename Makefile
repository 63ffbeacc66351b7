# Two commands, each alone in a fresh clone: make demo, make test.

PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed

.PHONY: help demo test clean

help:
	@echo "make demo    simulate micrographs, run cryopick on them, score what it found against the truth"
	@echo "make test    run every check: format, lint, types, imports, tests"
	@echo "make clean   remove .venv, demo/data, demo/project and caches"
	@echo "PYTHON=...   another Python, 3.11 or later (default: python3)"

demo: $(STAMP)
	scripts/demo

test: $(STAMP)
	scripts/check

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.version_info >= (3, 11) or sys.exit("cryopick needs Python 3.11 or later; $(PYTHON) is " + v + ". Name another: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

clean:
	rm -rf $(VENV) demo/data demo/project .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find src tests benchmarks scripts -name __pycache__ -type d -prune -exec rm -rf {} +
