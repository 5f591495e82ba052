# Every target sets up by itself, once, what it needs: .venv with the continued packages (onedl-*), or .venv-openmmlab
# with the original ones. `make demo` and `make test` are all that a new machine needs (Python 3.11 or newer with venv,
# gcc and g++).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OPENMMLAB := .venv-openmmlab
LITE := .venv-lite
DOCS := .venv-docs
# Test processes side by side; each takes one core and up to 2 GB.
WORKERS ?= 2
# A little patience of idle threads costs less than their spinning where cores are shared.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help setup demo demo-lite test test-lite test-openmmlab test-slow zoo lint format docs benchmark comparison comparison-report clean

help:
	@echo "make demo            train with and without the recommended block on drawn data; scores, clean and corrupted"
	@echo "make demo-lite       classification alone, which compiles nothing: digits, trained with A-FAN and tested"
	@echo "make test            run the tests"
	@echo "make comparison      train and test what the comparison of methods lacks; all of it: weeks"
	@echo "make comparison-report  make its tables and its picture anew"
	@echo "make test-lite       run engine, methods, classifiers and segmentors on mmcv-lite"
	@echo "make test-openmmlab  run the tests on the original packages (mmdet 3.3.0, mmsegmentation 1.2.2)"
	@echo "make test-slow       run the long tests too"
	@echo "make zoo             run the tests over all architectures and write docs/supported_models.md"
	@echo "make setup           the virtual environment alone"
	@echo "make lint            ruff and mypy; make format rewrites"
	@echo "make docs            build the documentation site, build/site/index.html"
	@echo "make benchmark       cost of an augmented step beside the stock step"
	@echo "make clean           remove what these targets made"

setup: $(READY)

# mmcv compiles its operators against the PyTorch that is there already, once; pip keeps
# the wheel.
$(READY): requirements/build.txt requirements/pinned.txt
$(OPENMMLAB)/.ready: requirements/build-openmmlab.txt requirements/pinned-openmmlab.txt
$(READY) $(OPENMMLAB)/.ready: setup.py
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer: make ... PYTHON=python3.11")'
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install -r $(@D:.venv%=requirements/build%.txt)
	$(@D)/bin/pip install --no-build-isolation -r $(@D:.venv%=requirements/pinned%.txt)
	$(@D)/bin/pip install --no-build-isolation --no-deps -e .
	touch $@

# Classification and DeepLabV3+ need no operator of mmcv.
$(LITE)/.ready: requirements/pinned-lite.txt requirements/pinned.txt setup.py
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install -r requirements/pinned-lite.txt
	$(@D)/bin/pip install --no-deps mmcv-lite==2.2.0 -e .
	touch $@

demo-lite: $(LITE)/.ready
	$(LITE)/bin/python tools/dataset_converters/make_digits.py
	$(LITE)/bin/python tools/train.py configs/afan/afan_resnet18_1xb64_digits.py --work-dir work_dirs/demo-lite
	$(LITE)/bin/python tools/test.py configs/afan/afan_resnet18_1xb64_digits.py work_dirs/demo-lite/epoch_8.pth
	$(LITE)/bin/python tools/test.py configs/afan/afan_resnet18_1xb64_digits.py work_dirs/demo-lite/epoch_8.pth --corruption gaussian_noise 3

demo: $(READY)
	$(BIN)/python tools/demo.py

test: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow and not zoo" --device cpu --dist worksteal

test-lite: $(LITE)/.ready
	$(LITE)/bin/python -m pytest -n $(WORKERS) -m "not slow and not zoo" tests/test_engine tests/test_functional tests/test_methods \
		tests/test_classification.py tests/contract

test-openmmlab: $(OPENMMLAB)/.ready
	$(OPENMMLAB)/bin/python -m pytest -n $(WORKERS) -m "not slow and not zoo"

test-slow: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS)

zoo: $(READY)
	MMFEATAUG_WRITE_ZOO=1 $(BIN)/python -m pytest tests/zoo

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Sphinx in an environment of its own, which finds the packages of .venv behind its own: the API reference imports them.
$(DOCS)/.ready: requirements/docs.txt $(READY)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install -r requirements/docs.txt
	$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' \
		> `$(@D)/bin/python -c 'import site; print(site.getsitepackages()[0])'`/packages.pth
	touch $@

docs: $(DOCS)/.ready
	rm -rf docs/api
	$(DOCS)/bin/sphinx-build -a -q -W --keep-going -c docs . build/site
	@echo "build/site/index.html"

benchmark: $(READY)
	$(BIN)/python benchmarks/cost.py

# STUDY=tune or why: another study. A GPU is used where one is visible; DEVICE=cpu does without.
STUDY ?= final
comparison: $(READY)
	$(if $(filter cpu,$(DEVICE)),CUDA_VISIBLE_DEVICES=) $(BIN)/python -m benchmarks.comparison.run $(STUDY) --jobs 2

comparison-report: $(READY)
	$(BIN)/python -m benchmarks.comparison.report

clean:
	rm -rf $(VENV) $(OPENMMLAB) $(LITE) $(DOCS) docs/api build dist *.egg-info mmfeataug/.mim work_dirs/demo work_dirs/demo-lite data/demo data/digits
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
