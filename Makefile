# make run    the whole system here; make run ARGS="--port 18080" passes options on
# make test   everything that proves it works
# make check  what CI runs
# make bench  how fast it is, in some minutes; FULL=1 also what takes an hour
# make chaos  breaks it for MINUTES=10, half simulated and half for real; SEED= begins it again
#
# They need only Python 3.11 or later, make and the network. PYTHON=python3.12 chooses one.
# Set-up is done once: the stamps in .venv are newer than what they were made from.

SHELL := /bin/sh
.SHELLFLAGS := -eu -c
MAKEFLAGS += --no-print-directory

PYTHON ?=
ARGS ?=
TESTS ?= tests
FULL ?=
MINUTES ?= 10
# Told at the start, so that what it finds can be had again.
SEED ?= $(shell date +%s)

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
INSTALL := $(PIP) install --quiet --no-compile
STAMP_VENV := .venv/made
STAMP_RUN := .venv/installed-run
STAMP_DEV := .venv/installed-dev

# Left out of the quick tests: what takes minutes.
SLOW := tests/crash tests/languages $(wildcard $(addprefix tests/integration/, \
	test_producing*.py test_analytics.py test_consuming.py test_embedded_secure.py \
	test_embedded_up.py test_ingress_registration.py test_processor_*s.py \
	test_rebuild_state.py test_securing.py test_sink_crashes.py test_sink_kafka.py \
	test_sink_lag.py test_verify.py test_verify_live.py))

# Needs no broker and no Postgres, but where a test is of them.
PURE := tests/unit tests/property tests/simulation tests/test_tidy.py

.PHONY: run test test-quick test-real test-pure check bench chaos lint types lock reference clean

run: $(STAMP_RUN)
	@exec $(BIN)/streamledger up $(ARGS)

test: $(STAMP_DEV)
	$(BIN)/python -m pytest $(TESTS)

test-quick: $(STAMP_DEV)
	$(BIN)/python -m pytest $(TESTS) $(addprefix --ignore=,$(SLOW))

# The tests that use a broker mostly wait for it: what only computes is done meanwhile.
check:
	@$(MAKE) --jobs=2 test-real lint types test-pure

test-real: $(STAMP_DEV)
	$(BIN)/python -m pytest tests $(addprefix --ignore=,$(PURE))

test-pure: $(STAMP_DEV)
	$(BIN)/python -m pytest $(PURE)

bench: $(STAMP_DEV)
	$(BIN)/python -m benchmarks.rules
	$(BIN)/python -m benchmarks.processor $(if $(FULL),--full)
	$(BIN)/python -m benchmarks.sink
	$(BIN)/python -m benchmarks.reads $(if $(FULL),--full)
	$(BIN)/python -m benchmarks.pipeline $(if $(FULL),--full)
	$(BIN)/python -m benchmarks.ingress $(if $(FULL),--full)

chaos: SEED := $(SEED)
chaos: HALF = $$(awk 'BEGIN { print $(MINUTES) / 2 }')
chaos: $(STAMP_DEV)
	$(BIN)/python -m tests.simulation --thorough --commands 20000 --seed $(SEED) --minutes $(HALF)
	$(BIN)/python -m tests.crash --seed $(SEED) --minutes $(HALF)

lint: $(STAMP_DEV)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(STAMP_DEV)
	$(BIN)/mypy

# The generated pages of docs/reference.
reference: $(STAMP_DEV)
	$(BIN)/python -m compose.reference
	$(BIN)/python -m schemas.publish

# The locks hold neither addresses nor paths; dev is run and more.
LOCK := $(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
	--no-header --no-emit-index-url --no-emit-find-links
lock: $(STAMP_DEV)
	echo hatchling | $(LOCK) pyproject.toml - --extra embedded --output-file requirements/run.txt
	$(LOCK) pyproject.toml --extra embedded --extra dev --constraints requirements/run.txt \
		--output-file requirements/dev.txt

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build

# python3 where it is new enough, else the first that is. Two lines instead of a traceback where
# none is, or where the system's packages left venv out.
$(STAMP_VENV):
	@for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python); do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			found=$$python; break; \
		fi; \
	done; \
	if [ -z "$${found:-}" ]; then \
		echo "make: Python 3.11 or later is needed ($(or $(PYTHON),python3) is not); install one, or name it: make PYTHON=/path/to/python3.12" >&2; \
		exit 1; \
	fi; \
	if ! "$$found" -c 'import ensurepip, venv' 2>/dev/null; then \
		version=$$("$$found" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
		echo "make: this Python lacks venv; install the package python$$version-venv (Debian, Ubuntu: apt install python$$version-venv)" >&2; \
		exit 1; \
	fi; \
	echo "setting up .venv with $$("$$found" --version)"; \
	"$$found" -m venv .venv
	@touch $@

# Whatever dev has, run has: one after the other installs nothing twice.
$(STAMP_RUN): requirements/run.txt pyproject.toml $(STAMP_VENV)
	@echo "installing what it needs to run (a minute or so)"
	@$(INSTALL) --require-hashes -r requirements/run.txt
	@$(INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

$(STAMP_DEV): requirements/dev.txt requirements/run.txt pyproject.toml $(STAMP_VENV)
	@echo "installing what it needs to be tested (a minute or so)"
	@$(INSTALL) --require-hashes -r requirements/dev.txt
	@$(INSTALL) --no-deps --no-build-isolation -e .
	@touch $(STAMP_RUN) $@
