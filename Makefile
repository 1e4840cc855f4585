# Every target does its own set-up; nothing is built twice. PYTHON=/path/to/python3.x chooses the interpreter.
.PHONY: setup demo serve test test-security test-vm test-faults test-compat bench soak lint format clean

BIN := .venv/bin
SOURCES := $(shell find native protos -type f -not -path '*/build/*' -not -name '*.so' -not -name '*.o' 2>/dev/null)
C_FILES := $(filter-out native/vendor/%,$(filter %.c %.h,$(SOURCES))) $(wildcard benchmarks/c/*.c)

setup: .venv/.ready

.venv/.ready: pyproject.toml .ci/requirements.lock .ci/setup $(SOURCES)
	@PYTHON="$(PYTHON)" .ci/setup

demo: setup
	@$(BIN)/python -m benchmarks.demo

serve: setup
	@$(BIN)/forklight serve

# ARGS="tests/unit -k sigv4" chooses tests.
test: setup
	@$(BIN)/python -m pytest $(ARGS)

# In guests with cgroup v2 only, emulated: some 30 minutes each. GUESTS=arm64 chooses; COMMAND="forklight doctor" runs something else.
GUESTS ?= amd64 arm64
test-vm: setup
	@status=0; for guest in $(GUESTS); do tests/vm/run $$guest $(COMMAND) || status=1; done; exit $$status

# Hostile functions and clients. ARGS="--endpoint http://host:port": against that server, with credentials from the environment as
# `forklight env` prints them; else against a server of its own.
test-security: setup
	@$(BIN)/python -m pytest tests/security/hostile -m "" $(ARGS)

bench: setup
	@$(BIN)/python -m benchmarks $(ARGS)

# Every fault there is, with the figures that are promised for them; wants a machine with nothing else to do.
test-faults: setup
	@$(BIN)/python -m pytest tests/faults -m "" $(ARGS)

# moto's own tests of Lambda with this server in moto's place, and libraries that people run on Lambda, from PyPI: some minutes.
# ARGS=tests/test_awslambda/test_lambda_alias.py: only those of moto's.
test-compat: setup
	@$(BIN)/python -m tests.compat.moto_suite $(ARGS)
	@$(BIN)/python -m pytest tests/compat/test_libraries.py -m ""

# ARGS="--minutes 30 --seed 7"; the figures go to .cache/soak.jsonl.
soak: setup
	@$(BIN)/python -m tests.soak $(ARGS)

lint: setup
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/codespell
	@$(BIN)/clang-format --dry-run --Werror $(C_FILES)

format: setup
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .
	@$(BIN)/clang-format -i $(C_FILES)

clean:
	rm -rf .venv build dist .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .benchmarks native/build sandbox/bin *.egg-info
	find gateway sandbox native tests benchmarks -name '*.so' -delete -o -name '*.o' -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
