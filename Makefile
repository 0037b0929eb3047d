# make            style, types, layers, tests          make test-engines   real engines (downloads llama.cpp, 34 MB)
# make run        the proxy, on config/proxy.yaml      make transcripts    rewrites what the transcripts expect
# make bench      the benchmark                        make clean          removes what the others made
#
# make run takes UPSTREAM=http://... UPSTREAM_KEY=... PROFILE=... HOST=... PORT=... OPEN=true CONFIG=FILE, here or in the
# environment; a key is safer there: what stands on a command line is visible in `ps`.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
CONFIG ?= config/proxy.yaml
BIN := .venv/bin

# Else make would take a $ in a key for a variable of its own.
ifeq ($(origin UPSTREAM_KEY),command line)
override export UPSTREAM_KEY := $(value UPSTREAM_KEY)
endif

.PHONY: all run check style types layers test test-engines bench transcripts clean
all: check test
run: .venv/run; @exec $(BIN)/python -m proxy $(CONFIG)
check: style types layers
style: .venv/check; $(BIN)/ruff check
types: .venv/check; $(BIN)/mypy
layers: .venv/check; $(BIN)/lint-imports
test: .venv/test; $(BIN)/python -m pytest
test-engines: .venv/engines; $(BIN)/python -m pytest -m engine tests/engines
bench: .venv/test; $(BIN)/python -m bench
transcripts: .venv/test; TRANSCRIPTS=write $(BIN)/python -m pytest -q tests/test_transcripts.py
clean:; rm -rf .venv .venv-peers .*_cache .hypothesis .coverage build dist *.egg-info; find . -name __pycache__ -prune -exec rm -rf {} +

# What each needs is installed once, and again when setup.cfg changes. Where uvloop can't be had, it runs without.
INSTALL = $(BIN)/python -m pip install --disable-pip-version-check --quiet --editable
STAMPS := .venv/run .venv/check .venv/test .venv/engines
$(STAMPS): setup.cfg pyproject.toml | $(BIN)/pip
.venv/run: ; @echo "Installing into .venv ..."; { $(INSTALL) '.[fast]' || $(INSTALL) .; } && touch $@
.venv/check: ; $(INSTALL) '.[fast,check,test]' && touch $@
.venv/test: ; $(INSTALL) '.[fast,test]' && touch $@
.venv/engines: ; $(INSTALL) '.[fast,test,engines]' && touch $@
$(BIN)/pip:
	@[ -n "$(PYTHON)" ] || { echo "This needs Python 3.11 or later with venv (on Debian: apt install python3-venv); name it with PYTHON=" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"{sys.executable} is {sys.version.split()[0]}: 3.11 or later is needed")'
	@$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
