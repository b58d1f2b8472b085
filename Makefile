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
TESTS ?=
FULL ?=
MINUTES ?= 10
# Printed at the start, so that a run can be repeated.
SEED ?= $(shell date +%s)

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
# uv does not read pip's settings: it is given the index that pip uses.
UV := index=$$($(PIP) config get global.index-url 2>/dev/null || true); \
	UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$$index}}"; \
	[ -z "$$UV_DEFAULT_INDEX" ] || export UV_DEFAULT_INDEX; \
	$(BIN)/uv pip install --quiet --python $(BIN)/python
STAMP_VENV := .venv/made
STAMP_RUN := .venv/installed-run
STAMP_DEV := .venv/installed-dev

PYTEST := exec $(BIN)/python -m pytest
# One of several that run side by side.
PART = $(PYTEST) -q -p tests.progress --part $@

# Needs no broker and no Postgres, but where a test is of them.
PURE := tests/unit tests/property tests/simulation tests/test_tidy.py

# Left out of the quick tests: what takes minutes.
SLOW := tests/crash tests/languages $(addprefix tests/integration/test_,producing*.py \
	analytics.py consuming.py embedded_secure.py embedded_up.py ingress_registration.py \
	processor_*s.py rebuild_state.py securing.py sink_crashes.py sink_kafka.py sink_lag.py \
	verify*.py)
# Of the others some, which run beside the rest of them.
QUICK_1 := $(addprefix tests/integration/test_,embedded_processes.py embedded_stores.py \
	processor_cli.py sink_refusals.py sink_writes.py)
QUICK := test-quick-1 test-quick-2

# The tests that use a broker mostly wait: they run in four parts side by side, each with a Kafka and
# a Postgres of its own. Parts take about the same time; what is in no list is in the fourth.
REAL_1 := $(addprefix tests/integration/test_,processor_*.py log_time.py)
REAL_2 := tests/crash $(addprefix tests/integration/test_,sink_*.py securing.py broker_limits.py \
	wheel.py)
REAL_3 := $(addprefix tests/integration/test_,backups.py embedded_*.py ingress_*.py \
	metrics_endpoints.py producing_page.py verify_live.py)
but = tests $(patsubst %,--ignore-glob='%',$(PURE) $(1))
REAL := test-real-1 test-real-2 test-real-3 test-real-4

TOGETHER := --jobs=5

.PHONY: run test test-quick $(QUICK) $(REAL) test-pure check bench chaos wheel lint types lock \
	reference clean

run: $(STAMP_RUN)
	@exec $(BIN)/streamledger up $(ARGS)

ifdef TESTS
test: $(STAMP_DEV)
	$(PYTEST) $(TESTS)
else
test:
	@exec $(MAKE) $(TOGETHER) $(REAL) test-pure
endif

test-quick:
	@exec $(MAKE) $(TOGETHER) $(QUICK) test-pure

# What only computes is done meanwhile, too.
check:
	@exec $(MAKE) $(TOGETHER) $(REAL) lint types test-pure

test-quick-1: $(STAMP_DEV)
	$(PART) $(QUICK_1)

test-quick-2: $(STAMP_DEV)
	$(PART) $(call but,$(SLOW) $(QUICK_1))

test-real-1: $(STAMP_DEV)
	$(PART) $(REAL_1)

test-real-2: $(STAMP_DEV)
	$(PART) $(REAL_2)

test-real-3: $(STAMP_DEV)
	$(PART) $(REAL_3)

test-real-4: $(STAMP_DEV)
	$(PART) $(call but,$(REAL_1) $(REAL_2) $(REAL_3))

test-pure: $(STAMP_DEV)
	$(PART) $(PURE)

# A wheel whose rules are machine code; it needs a C compiler and Python's headers. It is built from
# the source distribution, in a folder of its own: mypyc writes beside the sources.
wheel: $(STAMP_DEV)
	HATCH_BUILD_HOOKS_ENABLE=1 $(BIN)/uv build --quiet --no-build-isolation --out-dir dist

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
	$(BIN)/python -m tests.simulation --thorough --store --commands 20000 --seed $(SEED) --minutes $(HALF)
	$(BIN)/python -m tests.crash --seed $(SEED) --minutes $(HALF)

lint: $(STAMP_DEV)
	exec $(BIN)/ruff check
	exec $(BIN)/ruff format --check

types: $(STAMP_DEV)
	exec $(BIN)/mypy

# The generated pages of docs/reference.
reference: $(STAMP_DEV)
	$(BIN)/python -m compose.reference_docs.pages
	$(BIN)/python -m schemas.publishing.publish

# The locks hold neither addresses nor paths; dev is run and more.
LOCK := $(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
	--no-header --no-emit-index-url --no-emit-find-links
lock: $(STAMP_DEV)
	echo hatchling | $(LOCK) pyproject.toml - --extra embedded --output-file requirements/run.txt
	$(LOCK) pyproject.toml --extra embedded --extra dev \
		--constraints requirements/run.txt --output-file requirements/dev.txt
	echo uv | $(LOCK) - --constraints requirements/dev.txt --output-file requirements/uv.txt
	echo hatch-mypyc | $(LOCK) - --constraints requirements/dev.txt \
		--output-file requirements/build.txt

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

# uv installs in seconds what takes pip half a minute. What dev has, run has: one after the other
# installs nothing twice.
$(STAMP_RUN): requirements/run.txt requirements/uv.txt pyproject.toml $(STAMP_VENV)
	@echo "installing what it needs to run"
	@$(PIP) install --quiet --require-hashes -r requirements/uv.txt
	@$(UV) --require-hashes -r requirements/run.txt
	@$(UV) --no-deps --no-build-isolation -e .
	@touch $@

$(STAMP_DEV): requirements/dev.txt requirements/run.txt requirements/uv.txt pyproject.toml $(STAMP_VENV)
	@echo "installing what it needs to be tested"
	@$(PIP) install --quiet --require-hashes -r requirements/uv.txt
	@$(UV) --require-hashes -r requirements/dev.txt
	@$(UV) --no-deps --no-build-isolation -e .
	@touch $(STAMP_RUN) $@
