# Everything a newcomer and CI run. `make help` lists it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EPOCH = $(shell git log -1 --format=%ct 2>/dev/null || echo 0)

.DEFAULT_GOAL := help
.PHONY: help setup demo test check audit bench bench-serving bench-detectors reliability fuzz test-image protos results docs dist \
	test-wheel sbom loadtest clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(STAMP)  ## make .venv and install everything into it

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"advsentry needs Python 3.11 or newer, this is {sys.version.split()[0]}; set PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(STAMP)  ## train, export, evaluate, serve and attack, on scikit-learn's digits
	$(BIN)/python -m deploy.demo --out build/demo

test: $(STAMP) check  ## lint, types and all tests
	$(BIN)/python -m pytest -n 2 --dist worksteal

check: $(STAMP)  ## ruff, mypy strict, import arrows, known vulnerabilities
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -p no:cacheprovider tests/test_imports.py
	$(BIN)/python -m deploy.audit

audit: $(STAMP)  ## known vulnerabilities of what is installed; fails where the advisories cannot be reached, too
	$(BIN)/python -m deploy.audit --must-run

bench: $(STAMP)  ## throughput and latency of the service, images a second of training; ratios from one run
	$(BIN)/python -m deploy.bench
	$(BIN)/python -m deploy.bench_training

bench-serving: $(STAMP)  ## the service beside the bare session and beside model servers of others, under 12 minutes
	$(BIN)/python -m deploy.bench_serving
	$(BIN)/python -m deploy.bench_handlers

bench-detectors: $(STAMP)  ## our detectors beside those of peers, on the digits that `make demo` leaves
	$(BIN)/python -m deploy.peers --out build/demo/peers-digits.json

reliability: $(STAMP)  ## the reliability sheet: SIZE=quick (10 minutes) or full (hours); ONLY=R-1,R-2
	$(BIN)/python -m deploy.reliability --size $(or $(SIZE),quick) $(if $(ONLY),--only $(ONLY))

fuzz: $(STAMP)  ## feed readers and decoders what atheris makes up, SECONDS=60 each; new inputs join tests/fuzz/corpus
	$(BIN)/python -m deploy.fuzz --seconds $(or $(SECONDS),60)

test-image: $(STAMP)  ## build the container image and try it; takes root, buildah and debootstrap
	deploy/test_image.sh

protos: $(STAMP)  ## make the committed stubs again
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. protos/detection.proto
	$(BIN)/python -m grpc_tools.protoc -I. --pyi_out=. --include_imports --descriptor_set_out=protos/inference.binpb protos/inference.proto
	mv protos/inference_pb2.pyi protos/inference.pyi

results: $(STAMP)  ## docs/results.md and the README's table from docs/results/*.json
	$(BIN)/python -m deploy.results

docs: $(STAMP)  ## the tables in docs/ that follow from the code
	$(BIN)/python -m deploy.recipe_keys
	$(BIN)/python -m deploy.settings_table
	$(BIN)/python -m deploy.reliability.page
	$(BIN)/python -m deploy.loadtest.page
	$(BIN)/python -m deploy.loadtest.groups
	$(BIN)/python -m deploy.redteam.page
	$(BIN)/python -m deploy.related.page
	$(BIN)/python -m deploy.boards

dist: $(STAMP) sbom  ## into dist/: the wheel, the same bytes for the same commit, the sdist, the bill of materials
	SOURCE_DATE_EPOCH=$(EPOCH) $(BIN)/python -m build --no-isolation --outdir dist .

test-wheel: $(STAMP)  ## the wheel in an empty environment: installs, serves a shipped bundle, judges an image
	deploy/test_wheel.sh

sbom: $(STAMP)  ## the bill of materials alone: what is pinned, the GPU image's CUDA too, as CycloneDX
	SOURCE_DATE_EPOCH=$(EPOCH) $(BIN)/python -m deploy.sbom --out dist/advsentry.cdx.json

loadtest: $(STAMP)  ## constant rate, steps and a burst: a table, build/loadtest.svg, and what a fleet would need
	$(BIN)/python -m deploy.loadtest --picture build/loadtest.svg
	$(BIN)/python -m deploy.loadtest.fleet

clean:  ## remove what the commands above made
	rm -rf build dist $(VENV) .mypy_cache .ruff_cache .pytest_cache *.egg-info
