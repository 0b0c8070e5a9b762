# Every target sets up what it needs.  Read README.md first.

PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= dev
BIN := $(VENV)/bin
STAMP := $(VENV)/.zsad-installed

RESULTS ?= results
DATA_ROOT ?= $(ZSAD_DATA)
METHODS ?= all
DATASETS ?= all
BACKBONE ?= vit-l-14-336
DEMO_METHODS ?= filo,alfa,faprompt,kanoclip,clip,winclip,anomalyclip
DEMO_OPTIONS ?= $(if $(findstring filo,$(DEMO_METHODS)),filo.checkpoint=bundled)
DEMO_LIMIT ?= 64
DEMO_RESULTS ?= results/demo
# With matrices this small more threads spend more on waiting for each other than they save.
DEMO_THREADS ?= 1
PYTEST_ARGS ?= -n 2
SUDO ?= $(if $(filter 0,$(shell id -u)),,sudo)

SPEED := end_to_end engines pipeline scaling text filo windows maps metrics training stages loading generator versions
SPEED_BATCH ?= 8
SECONDS ?= 600
SEEDS ?= 0

.PHONY: setup demo test test-all fault fuzz browser states readme pictures lint format docs release bench tables speed speed-full speed-gpu clean

setup: $(STAMP)  ## virtual environment with zsad in editable mode

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[$(EXTRAS)]"
	touch $@

demo: export OMP_NUM_THREADS = $(DEMO_THREADS)
demo: setup  ## methods on real ELPV images and on generated ones, with the bundled backbone
	$(BIN)/zsad bench --methods $(DEMO_METHODS) --datasets elpv,synthetic \
		--backbone zsad-tiny --limit $(DEMO_LIMIT) --offline --results $(DEMO_RESULTS) $(DEMO_OPTIONS)
	$(BIN)/zsad tables --results $(DEMO_RESULTS)
	$(BIN)/zsad report --results $(DEMO_RESULTS)

test: setup  ## the suite but for what is marked slow, offline
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

test-all: setup  ## the whole suite, offline
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

fault: setup  ## all campaigns for SECONDS together: kills, full disks, odd files, hostile commands; a summary
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fault.campaigns --seconds $(SECONDS)

fuzz: setup  ## mutate inputs of every kind for SECONDS (or INPUTS of them); finds stay in tests/fuzz/corpus
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz.standing --seconds $(SECONDS) $(if $(INPUTS),--inputs $(INPUTS)) \
		$(if $(SEED),--seed $(SEED))

browser:  ## Debian's Chromium, with which the tests look at the report
	command -v chromium || $(SUDO) apt-get install -y --no-install-recommends chromium

states: setup  ## trained states for zsad-tiny, where they are not current; SEEDS=0,1,2 for their cards
	OMP_NUM_THREADS=1 $(BIN)/python -m zsad.benchmarks.tiny.states --seeds $(SEEDS)

readme: demo browser  ## what README shows of the demo: table, heat maps, picture of the report
	$(BIN)/python -m docs.regenerate --results $(DEMO_RESULTS)

pictures: setup browser  ## the predictions that README shows
	$(BIN)/python -m docs.pictures

lint: setup  ## ruff, and mypy on zsad, methods and benchmarks as laid out in the wheel
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python .ci/typecheck.py

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup  ## the documentation as a site, in build/site
	PATH="$(BIN):$$PATH" $(BIN)/python -m mkdocs build --strict --quiet --config-file .ci/mkdocs.yml

release: setup  ## wheel and sdist into dist/, checked; publishes nothing
	$(BIN)/python .ci/release.py

bench: setup  ## make bench METHODS=winclip,filo DATASETS=industrial DATA_ROOT=/data
	$(BIN)/zsad bench --methods $(METHODS) --datasets $(DATASETS) --backbone $(BACKBONE) \
		--results $(RESULTS) $(if $(DATA_ROOT),--data-root $(DATA_ROOT))

tables: setup
	$(BIN)/zsad tables --results $(RESULTS)

speed: setup  ## quick speed benchmarks; each prints its conditions and its figures
	set -e; for name in $(SPEED); do echo "== $$name"; \
		$(BIN)/python -m zsad.benchmarks.speed.$$name --quick; done

speed-full: setup  ## the same at real size; an hour on two cores
	set -e; for name in $(SPEED); do echo "== $$name"; \
		$(BIN)/python -m zsad.benchmarks.speed.$$name; done

speed-gpu: setup  ## ViT-L/14@336 at 518 pixels in bf16: speed, share of peak, memory, waits, equality
	$(BIN)/python -m zsad.benchmarks.speed.gpu --device cuda --precision bf16 \
		--batch $(SPEED_BATCH) --repeats 9
	$(BIN)/python -m zsad.benchmarks.speed.scaling --device cuda --precision bf16 \
		--backbone vit-l-14-336 --sizes 336,518 --repeats 9

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
