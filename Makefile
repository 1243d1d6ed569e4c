# make demo    set up what is missing and train the small maths tutor
# make test    set up what is missing and run the tests (at most 10 minutes on 2 cores)
# make faults  kill, fill, flip and cut: `make faults SEED=7` repeats what a seed drew,
#              `make faults SHARE=0.1` does a tenth of it
# make proofs  the longer proofs; make check: style and types; make pictures: README's pictures

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
# One version that is tested, so that set-up gives the same everywhere; `make test TORCH=torch`
# takes the newest that pyproject.toml admits.
TORCH ?= torch==2.13.0
RUN ?= runs/demo

.PHONY: demo test faults proofs check pictures clean

demo: $(STAMP)
	$(BIN)/yunque demo --out $(RUN)

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

SEED ?= $(shell date +%s)
SHARE ?= 1

faults: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/faults --faults=$(SHARE) --seed=$(SEED)

proofs: $(STAMP)
	$(BIN)/python -m pytest -m slow

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

pictures: $(STAMP)
	$(BIN)/python docs/pictures/make_pictures.py $(RUN)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Yunque needs Python 3.11 or newer; try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(STAMP)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
