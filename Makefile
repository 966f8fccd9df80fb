# make alone lists what there is. Nothing is assumed but GNU make, bash and Python 3.11 or newer with venv.

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Beside it: the installation also has what testing, linting and type checking need.
READY_DEV := $(VENV)/.ready-dev
CLIENT := robo_trader/log_relay
LOWEST := .venv-lowest
DIST := dist
PIP := -m pip --quiet --disable-pip-version-check
# Most of a test's time is waiting for another process, so four at a time keep even two cores less than busy. A part
# that ARGS names is mostly small, and its output easier to read from one process.
WORKERS ?= $(if $(ARGS),0,4)
# A file's tests stay in one process: they share what the file starts once.
PYTEST := -m pytest -n $(WORKERS) --dist loadfile

# Only what was typed: PORT in the environment is often meant for another program.
export RUN_PORT := $(if $(findstring command,$(origin PORT)),$(PORT))

.DEFAULT_GOAL := help
.PHONY: help setup run test check lint fmt types docs coverage lowest bench bench-trader chaos siege fuzz mutants dist clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## create .venv with everything that running needs

# Again when the list of dependencies is newer than the last installation, so the second time costs nothing.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make setup PYTHON=python3.12")'
	@$(PYTHON) -c 'import ensurepip' || { echo 'the venv module is missing: apt-get install python3-venv' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@# An environment from before the relay's distribution was called logrelay-daemon has the same files under two names.
	@if ls -d $(VENV)/lib/python*/site-packages/logrelay-0*.dist-info >/dev/null 2>&1; then $(BIN)/python $(PIP) uninstall --yes logrelay; fi
	$(BIN)/python $(PIP) install -e '.[bot]'
	@touch $@

$(READY_DEV): $(READY)
	$(BIN)/python $(PIP) install -e '.[bot,nats,alerts,test,lint]'
	@touch $@

run: $(READY) ## start relay and paper trader, print what to open; Ctrl-C stops both (PORT=9000: on another port)
	@bash -c "$$RUN_IN_FRONT"

test: $(READY_DEV) ## run every test this machine can run (ARGS='-k name' narrows it)
	$(BIN)/python $(PYTEST) $(ARGS)

check: lint types test ## lint, types and tests; CI adds coverage and the lowest versions

lint: $(READY_DEV) ## ruff: rules and format; the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

fmt: $(READY_DEV) ## let ruff format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(READY_DEV) ## mypy --strict
	$(BIN)/mypy

docs: $(READY_DEV) ## write the tables of docs/operations.md anew from the code
	$(BIN)/python tests/contract/test_docs.py

# Branches too. Processes that a test starts are not measured; docs/testing.md says what that leaves out.
coverage: $(READY_DEV) ## measure what unit and integration tests cover, against a floor
	$(BIN)/python $(PYTEST) tests/unit tests/integration --cov --cov-report=term-missing:skip-covered $(ARGS)

# Every dependency at the lowest version that pyproject.toml allows, in an environment of its own.
lowest: $(LOWEST)/.ready ## run the tests that depend on other packages with the oldest ones allowed
	$(LOWEST)/bin/python $(PYTEST) tests/unit tests/integration tests/system/test_cli.py tests/system/http tests/system/alerts $(ARGS)

$(LOWEST)/.ready: pyproject.toml $(CLIENT)/pyproject.toml .ci/lowest.py
	rm -rf $(LOWEST)
	$(PYTHON) -m venv $(LOWEST)
	$(PYTHON) .ci/lowest.py pyproject.toml $(CLIENT)/pyproject.toml >$(LOWEST)/constraints.txt
	$(LOWEST)/bin/python $(PIP) install --constraint $(LOWEST)/constraints.txt -e '.[bot,nats,alerts,test]'
	@touch $@

bench: $(READY) ## measure the fan-out to many viewers
	$(BIN)/python tests/bench/fanout.py $(ARGS)

bench-trader: $(READY) ## measure what a log call costs the trader
	$(BIN)/python tests/bench/trader.py $(ARGS)

chaos: $(READY_DEV) ## kill things at random and count lines, with the full counts (some 10 minutes)
	CHAOS=full $(BIN)/python -m pytest tests/system/chaos tests/system/alerts/test_killed.py $(ARGS)

siege: $(READY_DEV) ## attack both listeners of a relay and see who notices (some 25 minutes; ARGS='--listener viewers', ARGS=row)
	$(BIN)/python -m tests.siege $(ARGS)

fuzz: $(READY_DEV) ## give a million random inputs to each listener's code (some 10 minutes; ARGS=--real: to a relay)
	$(BIN)/python -m tests.fuzz $(ARGS)

mutants: $(VENV)/.mutants ## put small faults into the code and see whether the tests notice (ARGS=batch: one module)
	$(BIN)/python -m tests.mutation $(ARGS)

# The operators are those of mutmut; nothing else needs it, so it is no dependency of the tests.
$(VENV)/.mutants: $(READY_DEV)
	$(BIN)/python $(PIP) install 'mutmut~=3.8.1'
	@touch $@

# Each wheel is built from its sdist, so an sdist that lacks a file does not build.
dist: $(READY_DEV) ## build logrelay-daemon and logrelay-client, wheel and sdist of each, into dist/
	rm -rf $(DIST)
	$(BIN)/python -m build --outdir $(DIST) .
	$(BIN)/python -m build --outdir $(DIST) $(CLIENT)

clean: ## remove .venv and every cache
	rm -rf $(VENV) $(LOWEST) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .mutants dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Ctrl-C reaches every process in front of the terminal, and make, being one, would end as interrupted whatever
# its recipe did. So on a terminal the recipe moves to a process group of its own, in front.
define RUN_IN_FRONT
if [ -t 0 ]; then
  set -m
  if command -v setpriv >/dev/null; then setpriv --pdeathsig TERM bash -c "$$RUN"; else bash -c "$$RUN"; fi
else
  exec bash -c "$$RUN"
fi
endef
export RUN_IN_FRONT

# Relay and trader are in sessions of their own (setsid): only this shell hears Ctrl-C, and it stops the trader
# first, so that its last lines are in the journal when the relay stops.
define RUN
if [ -n "$$RUN_PORT" ] && ! { [[ $$RUN_PORT =~ ^[0-9]{1,5}$$ ]] && [ "$$RUN_PORT" -le 65535 ]; }; then
  echo "make run: PORT is '$$RUN_PORT'; allowed: a whole number from 0 to 65535" >&2
  exit 2
fi
home=$$(mktemp -d "$${TMPDIR:-/tmp}/logrelay-run.XXXXXX")
relay= trader= code=0
stop() {
  trap "" INT TERM HUP
  for pid in $$trader $$relay; do
    kill -TERM $$pid 2>/dev/null
    wait $$pid; ended=$$?
    [ $$ended -eq 0 ] || [ $$code -ne 0 ] || code=$$ended
  done
  exec 5>&-
  wait $$relay_out $$trader_out
  [ -z "$$watch" ] || { kill -KILL $$watch; wait $$watch; } 2>/dev/null
  rm -rf "$$home"
  exit $$code
}
trap stop INT TERM HUP
# A terminal that goes away tells its session leader, which may be make, which waits for us: so notice it here.
watch=
if [ -t 0 ]; then
  exec 3<&0
  ( trap "" INT TERM HUP; while read -r -u 3; do :; done 2>/dev/null; kill -HUP $$$$ ) & watch=$$!
fi
export LOGRELAY_SOCKET="$$home/ingest.sock" LOGRELAY_JOURNAL="$$home/journal.db" PYTHONUNBUFFERED=1
[ -z "$$RUN_PORT" ] || export LOGRELAY_PORT="$$RUN_PORT"
# The trader writes into a pipe, so whether colours are wanted is decided here.
if [ -t 1 ] && [ -z "$${NO_COLOR:-}" ] && [ "$${TERM:-}" != dumb ]; then form=colour; else form=console; fi
export ROBO_LOG_FORMAT=$${ROBO_LOG_FORMAT:-$$form}
unset LOGRELAY_DISABLED
mkfifo "$$home/relay" "$$home/trader" "$$home/news"
exec 5<>"$$home/news"
( trap "" INT TERM HUP
  while IFS= read -r line; do
    printf 'relay  | %s\n' "$$line"
    [[ $$line =~ ready.*(ws://[^[:space:],]+) ]] && echo "$${BASH_REMATCH[1]}" >&5
  done <"$$home/relay"; echo gone >&5 ) & relay_out=$$!
( trap "" INT TERM HUP; exec sed -u 's/^/trader | /' <"$$home/trader" ) & trader_out=$$!
setsid $(BIN)/logrelay serve >"$$home/relay" 2>&1 3<&- 5>&- & relay=$$!
read -r url <&5
if [ "$$url" = gone ]; then
  wait $$relay; code=$$?; relay=
  : >"$$home/trader"
  echo "make run: the relay did not start (exit code $$code)" >&2
  [ $$code -ne 3 ] || echo "make run: with another port it may: make run PORT=9000" >&2
  [ $$code -ne 0 ] || code=1
  stop
fi
url=$${url/127.0.0.1/localhost}
setsid $(BIN)/python -m robo_trader >"$$home/trader" 2>&1 3<&- 5>&- & trader=$$!
printf '\n  browser   http%s/\n  terminal  npx wscat -c %s\n            $(BIN)/logrelay tail %s\n' "$${url#ws}" "$$url" "$$url"
printf '  stop      Ctrl-C\n\n'
while [ -n "$$relay" ]; do
  wait -n -p who $$relay $$trader; ended=$$?
  case $$who in
    "$$relay") relay=; code=$$ended; [ $$code -ne 0 ] || code=1
      echo "make run: the relay ended by itself (exit code $$ended)" >&2; stop ;;
    "$$trader") trader=
      echo "make run: the trader ended (exit code $$ended); the relay goes on until Ctrl-C" >&2
      [ $$ended -eq 0 ] || code=$$ended ;;
  esac
done
endef
export RUN
