# Each target makes its own virtual environment and installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# where torch's build for processors is: the one of PyPI brings gigabytes for GPUs on Linux; with a GPU name another
# one, which is then remembered
TORCH_INDEX ?= $(or $(shell cat $(VENV)/torch-index 2> /dev/null),https://download.pytorch.org/whl/cpu)
TORCH := --no-deps --retries 1 --timeout 15 --extra-index-url $(TORCH_INDEX) torch
# the texts that benchmarks read: docs/data.md
DATA ?= ../shared/data
extras_demo := demo
extras_serve := serve
extras_dev := demo,serve,tensorboard,plots,dev

.PHONY: demo serve test coverage check format docs bench

demo: $(VENV)/demo
	$(BIN)/heedful demo

serve: $(VENV)/serve
	$(BIN)/heedful serve --open

test: check
	$(BIN)/python -m pytest -m "not slow" -n auto --dist loadfile --durations 5 -rs
	$(BIN)/python -m pytest -m slow -n auto --durations 0 -rs

coverage: $(VENV)/dev
	$(BIN)/python -m pytest -m "not slow" -n auto --dist loadfile --cov --cov-report=term:skip-covered

check: $(VENV)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/dev
	$(BIN)/python docs/reference.py

bench: $(VENV)/dev
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[peers,serve]'
	$(BIN)/python benchmarks/training.py --data $(DATA)/multi30k-en-de --sizes tiny
	$(BIN)/python benchmarks/training.py --data $(DATA)/multi30k-en-de --sizes small,base --precisions auto
	$(BIN)/python benchmarks/translating.py --input $(DATA)/multi30k-en-de/test_2016_flickr.de --reference $(DATA)/multi30k-en-de/test_2016_flickr.en
	$(BIN)/python benchmarks/serving.py --input $(DATA)/multi30k-en-de/test_2016_flickr.en --seconds 20 --rounds 1
	$(BIN)/python benchmarks/recording.py
	$(BIN)/python benchmarks/starting.py
	$(BIN)/python benchmarks/growth.py --data $(DATA)/tatoeba-en-de

# torch comes first, alone, from its own index (which is not asked for anything else); the rest finds it there.
$(VENV)/demo $(VENV)/serve $(VENV)/dev: pyproject.toml constraints.txt | $(VENV)/made
	$(BIN)/pip install --quiet --constraint constraints.txt $(TORCH)
	echo $(TORCH_INDEX) > $(VENV)/torch-index
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[$(extras_$(@F))]'
	touch $@

# said before torch is downloaded; an environment that is there already, made by hand, say, is taken as it is
$(VENV)/made:
	@$$(test -x $(BIN)/python && echo $(BIN)/python || echo $(PYTHON)) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info[:2] <= (3, 14) else "heedful wants Python 3.11 to 3.14: make PYTHON=python3.12 ...")'
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	touch $@
