# Each target makes its own virtual environment and installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# where torch's build for processors is: the one of PyPI brings gigabytes for GPUs on Linux; with a GPU name another
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH := --no-deps --retries 1 --timeout 15 --extra-index-url $(TORCH_INDEX) torch

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
	$(BIN)/python benchmarks/training.py --sizes tiny
	$(BIN)/python benchmarks/training.py --sizes small,base --precisions auto
	$(BIN)/python benchmarks/translating.py
	$(BIN)/python benchmarks/serving.py --seconds 20 --rounds 1
	$(BIN)/python benchmarks/recording.py
	$(BIN)/python benchmarks/growth.py

# torch comes first, alone, from its own index (which is not asked for anything else); the rest finds it there.
$(VENV)/demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt $(TORCH)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[demo]'
	touch $@

$(VENV)/serve: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt $(TORCH)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[serve]'
	touch $@

$(VENV)/dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt $(TORCH)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[demo,serve,tensorboard,plots,dev]'
	touch $@
