# `make` lists the targets. Everything runs in .venv, which `make setup` makes; the other targets call it.
PYTHON ?= python3
BIN := .venv/bin
# One thread per test process: the processes share the cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto

.PHONY: help setup demo test test-slow lint docs format lock wheel

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-10s %s\n", $$1, $$2}'

setup: .venv/.ready ## install into .venv

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup ## run every stage on the embedded corpus; results in demo-out/
	$(BIN)/clipvip-demo run --out demo-out

# A file's tests stay in one process, which sets up once what they share.
test: setup ## the fast tests
	$(PYTEST) --dist loadfile

test-slow: setup ## the tests that take minutes
	$(PYTEST) -m slow

lint: setup ## style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: setup ## build the documentation into site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

format: setup ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: setup ## write constraints.txt from what is installed
	echo "# The versions that 'make setup' installs; 'make lock' writes this file from what is installed." > constraints.txt
	$(BIN)/pip freeze --exclude-editable | grep -v '^#' \
		| sed -e 's/+cpu$$//' -e 's/^faiss-cpu\(==.*\)/&\nfaiss-gpu\1/' >> constraints.txt

wheel: setup ## build dist/*.whl and dist/*.tar.gz
	$(BIN)/python -m build
