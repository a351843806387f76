# The commands that people and CI run. `make` alone lists them.
PYTHON ?= python3
BIN := .venv/bin
LOCK := requirements-dev.lock
IMAGES := deploy/locks
UPGRADE ?= --upgrade
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help setup run test quick coverage check docs format protos lock bench bench-smoke neighbours engines growth scaling large soak chaos shutdowns \
    swaps lowest fuzz smoke release clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: .venv/ready  ## make .venv with everything pinned, from nothing

.venv/ready: $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else \
	    "The trainer needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is %d.%d: make setup PYTHON=python3.12" % v)'
	@# An environment whose installation was interrupted is begun anew; a finished one is only brought up to date.
	@$(PYTHON) -m venv $(if $(wildcard $@),,--clear) .venv \
	    || { echo "no venv: on Debian, apt-get install python3-venv" >&2; exit 1; }
	@rm -f $@
	@echo "installing the pinned development environment into .venv (about 2 GB, once)"
	@$(BIN)/pip --disable-pip-version-check install --quiet --no-deps --require-hashes -r $(LOCK)
	@$(BIN)/pip --disable-pip-version-check install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

lock:  ## resolve the dependencies anew into the lock files; UPGRADE= keeps the versions that they have
	$(COMPILE) $(UPGRADE) --extra images --extra server --extra fast --extra otel --extra remote --extra trainer --group dev \
	    --output-file $(LOCK) pyproject.toml
	@# The images': the same versions. The server's has the engines alone, without what only their Python packages need.
	$(COMPILE) --constraint $(LOCK) --extra images --output-file $(IMAGES)/client.txt pyproject.toml
	$(COMPILE) --constraint $(LOCK) --extra serving --extra fast --extra otel --extra remote --output-file $(IMAGES)/server.txt pyproject.toml
	$(COMPILE) --constraint $(LOCK) --no-deps --output-file $(IMAGES)/litert.txt $(IMAGES)/litert.in
	$(COMPILE) --constraint $(LOCK) --no-deps --output-file $(IMAGES)/tensorflow-cpu.txt $(IMAGES)/tensorflow-cpu.in
	$(COMPILE) --constraint $(LOCK) --output-file $(IMAGES)/tensorflow-gpu.txt $(IMAGES)/tensorflow-gpu.in
	$(COMPILE) --constraint $(LOCK) --extra trainer --extra remote --output-file $(IMAGES)/trainer-cpu.txt pyproject.toml
	$(COMPILE) --constraint $(LOCK) --extra trainer-gpu --extra remote --output-file $(IMAGES)/trainer-gpu.txt pyproject.toml
	$(COMPILE) --constraint $(LOCK) --output-file $(IMAGES)/build.txt $(IMAGES)/build.in

protos: setup  ## regenerate protos/horngate_protos from the .proto files
	@$(BIN)/python protos/generate.py

docs: setup  ## the site, in site/: strict, with every link; and the documents' spelling
	@$(BIN)/codespell --skip '*.svg' README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md docs deploy server/SECURITY.md
	@rm -rf .site; mv site .site 2>/dev/null || true  # an interrupted build leaves no site, not half of one
	@$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet -c docs -d .doctrees . .site
	@mv .site site

check: setup docs  ## lint, types, boundaries between the parts, drift of generated code, the workflows, docs
	@$(BIN)/ruff format --check --quiet . || { echo "run 'make format'" >&2; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports
	@$(BIN)/python protos/generate.py --check
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(BIN)/zizmor --quiet --offline .github

format: setup  ## format the code and fix what ruff can fix
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --fix --quiet .

run: setup  ## train, serve, classify the test images, keep serving until Ctrl-C
	@$(BIN)/python deploy/quickstart.py

bench: setup  ## measure trainer, start and serving beside their limits and peers; writes benchmarks/RESULTS.md
	@$(BIN)/python benchmarks/trainer.py
	@$(BIN)/python benchmarks/start.py
	@$(BIN)/python benchmarks/serving.py
	@$(BIN)/python benchmarks/render.py

bench-smoke: setup  ## every benchmark once, with the smallest settings, saving nothing: do they still work?
	@PYTHONPATH=tests $(BIN)/python benchmarks/smoke.py

soak: setup  ## an hour of everything at once: memory must not grow, every request must be counted once
	@$(BIN)/python benchmarks/soak.py

chaos: setup  ## 40 minutes of everything that can go wrong, on both transports: no answer wrong, no call lost
	@PYTHONPATH=tests $(BIN)/python benchmarks/chaos.py

shutdowns: setup  ## forty shut-downs at random moments: each in time, with a true exit code
	@PYTHONPATH=tests $(BIN)/python benchmarks/shutdowns.py

neighbours: setup  ## good callers beside bad ones, 8 minutes: no good call may fail, and they keep their rate
	@$(BIN)/python benchmarks/neighbours.py
	@$(BIN)/python benchmarks/render.py

engines: setup  ## TensorFlow and LiteRT beside each other behind the same server, 8 minutes
	@$(BIN)/python benchmarks/engines.py
	@$(BIN)/python benchmarks/render.py

growth: setup  ## what grows how, 5 minutes: load to beyond capacity, workers, models, sizes of requests
	@$(BIN)/python benchmarks/growth.py
	@$(BIN)/python benchmarks/render.py

scaling: setup  ## replicas behind Envoy and balancing callers, 15 minutes: spread, faults; simulated to 1,000
	@$(BIN)/python benchmarks/scaling.py
	@$(BIN)/python benchmarks/render.py

large: setup  ## large models at default settings, 30 minutes: time to ready, memory, throughput beside TensorFlow's own
	@$(BIN)/python benchmarks/large_models.py
	@$(BIN)/python benchmarks/render.py

swaps: setup  ## fifty versions take over under load: no call may fail, and memory must come back
	@$(BIN)/python benchmarks/swaps.py
	@$(BIN)/python benchmarks/render.py

smoke:  ## the docker-compose stack, without and with TensorFlow: up, classify, watch, kill, restart, doors (docker or podman)
	@for engine in litert tensorflow; do HORNGATE_IMAGE_ENGINE=$$engine $(PYTHON) deploy/smoke.py || exit 1; done

test: setup  ## the whole test-suite, with a minute of fuzzing: two files at a time, then what must be alone
	@$(BIN)/pytest -n 2 --dist loadfile -m "not alone"
	@$(BIN)/pytest -m alone

quick: setup  ## the tests that take less than a second each, half a minute in all
	@$(BIN)/pytest -q -m "not slow"

coverage: setup  ## the whole test-suite, measured, its processes too; fails below the floor
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest --timeout 300
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

lowest: setup  ## test with the lowest versions that pyproject.toml allows, in environments of their own (about 2 GB)
	@$(BIN)/python tests/lowest.py

fuzz: setup  ## five million mutated messages to the decoders, 200,000 over the wire; needs models/, which `make run` makes
	@PYTHONPATH=tests $(BIN)/python tests/fuzz/decoders.py --runs 5000000
	@PYTHONPATH=tests $(BIN)/python tests/fuzz/over_the_wire.py --models models --transport grpcio --messages 100000
	@PYTHONPATH=tests $(BIN)/python tests/fuzz/over_the_wire.py --models models --transport fast --messages 100000

release:  ## commit and tag VERSION=1.2.3 of what CHANGELOG.md calls unreleased; DRY=--dry-run only shows it
	@$(PYTHON) deploy/release.py $(DRY) $(or $(VERSION),$(error make release VERSION=1.2.3))

clean:  ## remove what the commands above made
	rm -rf .venv .lowest .doctrees models report dist site
