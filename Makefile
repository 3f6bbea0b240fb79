# make demo | test | test-all | check | bench | clean. `make PYTHON=python3.11 test` chooses the interpreter.
.PHONY: help demo test test-all check format bench clean venv
BIN := .venv/bin
export PYTHON

help:
	@echo "make demo      install, then the smallest whole run, with a report to open"
	@echo "make test      the fast tests            make test-all   the slow ones too"
	@echo "make check     lint, format and types    make format     mend lint and format"
	@echo "make bench     the benchmarks, quickly   make clean      remove what these made"

venv:
	@sh .ci/venv

demo: venv
	$(BIN)/hybridwm run glass --quick --out runs/glass

test: venv
	$(BIN)/python -m pytest -m "not slow" -n auto --maxprocesses 8 --dist loadfile

test-all: venv
	$(BIN)/python -m pytest

check: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: venv
	@set -e; for file in benchmarks/[a-z]*.py; do \
		name=$$(basename $$file .py); echo "== $$name"; $(BIN)/python $$file --quick --out runs/benchmarks/$$name; done

clean:
	rm -rf .venv runs build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
