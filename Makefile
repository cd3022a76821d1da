# Every target sets up .venv by itself; all that is needed is Python 3.10 or newer and make.
#   make PYTHON=/path/to/python3.12 test      with that Python
#   make MODEL=./model.gguf demo              with that model
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help demo test deaths llama-cpp record lint format types bench bench-tools notebooks docs docs-serve setup setup-dev clean

PYTHON ?=
MODEL ?=
PYTEST_ARGS ?=
RECORD_ARGS ?=
RUN := .venv/bin/python
SCRIPTS := tools benchmarks examples
# The death matrix and the tests of SmolLM2 run apart and alone: the one counts processes and seconds, and the threads of
# the other wait for each other in spin loops. Both are wrong on a busy machine.
WORKERS ?= 2

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup  ## Answer a question through LangChain and through LlamaIndex (MODEL=path.gguf for another model)
	@$(RUN) examples/demo.py $(if $(MODEL),--model '$(MODEL)')

test: setup-dev  ## Run the whole suite (PYTEST_ARGS='-k name' for a part of it)
ifeq ($(PYTEST_ARGS),)
	@$(RUN) -m pytest -n $(WORKERS) -m 'not deaths and not smollm2'
	@$(RUN) -m pytest -m 'smollm2 and not deaths'
	@$(RUN) -m pytest -m deaths
else
	@$(RUN) -m pytest $(PYTEST_ARGS)
endif

deaths: setup-dev  ## Run the death matrix alone, 20 times each
	@LOCALLLAMA_TEST_REPEATS=20 $(RUN) -m pytest -m deaths

llama-cpp: setup-dev  ## Compile llama.cpp's own programs for the tests, once (10 to 20 minutes)
	@$(RUN) tools/build_llama_cpp.py

record: llama-cpp  ## Record the cassettes of tests/replay anew (RECORD_ARGS='--server path --sources path' for another build)
	@$(RUN) tools/record_cassettes.py $(RECORD_ARGS)

lint: setup-dev  ## Check style, formatting and the layers
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@.venv/bin/lint-imports --no-cache

format: setup-dev  ## Rewrite what the formatter and the linter can
	@$(RUN) -m ruff check --fix .
	@$(RUN) -m ruff format .

types: setup-dev  ## Check types (mypy, strict)
	@$(RUN) -m mypy
	@$(RUN) -m mypy $(SCRIPTS)

bench: setup-dev  ## Measure imports, construction and the first token
	@$(RUN) benchmarks/run_all.py

bench-tools: setup-dev  ## Count valid tool calls on five template families, and beside two peers
	@$(RUN) benchmarks/tools_conformance.py $(if $(MODEL),--model '$(MODEL)')
	@$(RUN) -m pip install --quiet --group peers
	@$(RUN) benchmarks/tools_beside_peers.py $(if $(MODEL),--model '$(MODEL)')

setup:
	@python=$$(PYTHON='$(PYTHON)' sh tools/find_python.sh) && "$$python" tools/setup_environment.py

setup-dev:
	@python=$$(PYTHON='$(PYTHON)' sh tools/find_python.sh) && "$$python" tools/setup_environment.py --dev

notebooks: setup-dev  ## Run the notebooks and keep what they show (NAMES='1_quickstart' for some of them)
	@$(RUN) tools/run_notebooks.py $(NAMES)

docs: setup-dev  ## Build the documentation into .cache/site; a dead link fails
	@$(RUN) -m pip install --quiet --group docs
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

docs-serve: setup-dev  ## Show the documentation in a browser while you write
	@$(RUN) -m pip install --quiet --group docs
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs serve

clean:  ## Remove what these targets made
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache build dist
