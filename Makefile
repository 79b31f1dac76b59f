# make book: install, run every notebook, build the book. make help lists the rest.
PYTHON ?= python3
TORCH_INDEX ?=
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal # a thread a process: two of each wait for one another
EXECUTED := book/.executed
PAGES := $(basename $(notdir $(wildcard notebooks/*.ipynb)))
SUMMARIES := verdicts index
NOTES := $(PAGES:%=$(EXECUTED)/%.json)
RESTS_ON := $(shell find lsr_core study results -name '*.py' -o -name '*.toml' -o -name '*.jsonl' -o -name '*.js' -o -path 'study/*.json' -o -name bench.json -o -name 'cluster*.json')
HANDOUT = @$(BIN)/python -c "from pathlib import Path; from study import handout; handout.
ifndef LSR_MAKE # the first make: with it, even where it is killed, study/build.py ends
export LSR_MAKE := $(shell echo $$PPID)
endif
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

.PHONY: help env book slides pdf dist test test-all test-endurance test-machines coverage bench figure lint clean gone
.SECONDEXPANSION:

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16
	@echo
	@echo "PYTHON=...       the interpreter for $(VENV) (default: python3; 3.11 or newer)"
	@echo "VENV=...         another folder for the environment, so that several interpreters can be tried"
	@echo "TORCH_INDEX=...  an extra package index for PyTorch, such as its CPU index"
	@echo "LSR_STORE=...    where the records of finished runs are kept (default: the user's cache)"

env: $(STAMP) ## create .venv and install everything into it

# The environment is whole or begun again: without its stamp it was interrupted.
$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null \
		|| { echo "there is no $(PYTHON); install Python 3.11 or newer, or name one with PYTHON="; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than Python 3.11; choose another with PYTHON="; exit 1; }
	@test -w . || { echo "$(CURDIR) cannot be written; copy the project to a folder of yours"; exit 1; }
	@$(PYTHON) -c 'import shutil, sys; sys.exit(shutil.disk_usage(".").free < 3e9)' \
		|| { echo "the disk of $(CURDIR) has less than 3 GB left, which the environment needs"; exit 1; }
	@test -e $(STAMP) || rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) \
		|| { echo "$(PYTHON) cannot make $(VENV); on Debian and Ubuntu, install python3-venv"; exit 1; }
	@echo "installing into $(VENV): a few minutes"
	@$(BIN)/python -m pip install --quiet $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) \
		-c constraints.txt -e ".[book,test]" \
		|| { echo "the installation did not finish; the same command begins it again"; exit 1; }
	@touch $@

book: env ## execute every notebook that would change and build the book as HTML
	@$(BIN)/python -c "from study import build; print(build.forecast(workers=2))"
	@$(MAKE) -s -j2 -k book/status.md
	$(BIN)/jupyter-book build -q -W -n --keep-going book
	$(HANDOUT)slides(Path('book'), Path('book/_build/html/slides'))"
	@echo "the book: $(CURDIR)/book/_build/html/index.html"

# A notebook is executed again where the note of its last execution is older than what it rests on, or its page is gone.
$(EXECUTED)/%.json: notebooks/%.ipynb $(RESTS_ON) $(STAMP) $$(if $$(wildcard book/$$*.ipynb),,gone)
	@$(BIN)/python -P study/build.py $< book

$(SUMMARIES:%=$(EXECUTED)/%.json): | $(filter-out $(SUMMARIES:%=$(EXECUTED)/%.json),$(NOTES)) # they read what it left

book/status.md: $(NOTES)
	@$(BIN)/python -c "from pathlib import Path; from study import build; \
		Path('$@').write_text(build.status_page('$(PAGES)'.split(), Path('book')))"

slides: book ## one lecture as slides; the book's page on teaching links them
	@echo "the slides: $(CURDIR)/book/_build/html/slides/index.html"

pdf: book ## the printed book as one file, through Chromium
	$(HANDOUT)pdf(Path('book'), Path('book/_build/book.pdf'))"
	@echo "the printed book: $(CURDIR)/book/_build/book.pdf"

dist: pdf ## HTML, PDF, slides, figures as SVG and records as CSV in one zip
	$(HANDOUT)pack(Path('book'), Path('dist/lsr-book-$(VERSION).zip'))"
	@echo "all in one file, whose README.txt says what is where: dist/lsr-book-$(VERSION).zip"

test: env ## the tests of a commit, about four minutes
	$(PYTEST)

test-all: env ## all but the endurance tests; the book in a browser
	$(PYTEST) -m "not endurance"

EXACT = losses teachers memory objectives metrics statistics

coverage: env ## branch coverage of the exact parts, at least 95 %
	$(PYTEST) -q $(EXACT:%=tests/test_%.py) --cov

test-endurance: env ## many kills, many processes, many runs, with what they print; a quarter of an hour
	$(BIN)/python -m pytest -m endurance -s

test-machines: env ## the numerical tests with fewer instructions and other threads; the rest from elsewhere
	tests/machines.sh $(BIN)/python

bench: env ## programs and losses against the ordinary way; the table of the book's page on published records
	$(BIN)/python benchmarks/bench.py --json results/bench.json

figure: env ## draw the README's figures anew: the ladder from the records, the house from the imports
	$(BIN)/python -c "from study import figures, house; figures.save(house.house(), 'book/_static/house.svg')"
	$(BIN)/python -c "from study import arms, figures, published_records, results, settings, studies; \
		trained, of_truth = arms.ladders(); cifar_rungs = arms.rungs(settings.CIFAR); \
		live = results.collect(results.flat(trained, of_truth), studies.QUICK.seeds); \
		both = live | published_records.results('desktop', cifar_rungs.values()); \
		trained['CIFAR-100, a trained teacher'] = cifar_rungs; \
		figures.save(figures.ladder(both, trained, of_truth), 'book/_static/ladder.svg')"

lint: env ## style, formatting, docstrings, and the word lists by which the prose is searched
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tests/prose.py

clean: ## remove what was built; records of finished runs stay
	rm -rf $(VENV) book/_build book/*.ipynb book/status.md $(EXECUTED) executed build dist *.egg-info
