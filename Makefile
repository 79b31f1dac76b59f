# make book: install, run every notebook, build the book. make help lists the rest.
PYTHON ?= python3
TORCH_INDEX ?=
BIN := .venv/bin
STAMP := .venv/.installed
PYTEST = $(BIN)/python -m pytest -n 2 --dist loadgroup

.PHONY: help env book test test-all coverage bench figure lint clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12
	@echo
	@echo "PYTHON=...       the interpreter for .venv (default: python3; 3.11 or newer)"
	@echo "TORCH_INDEX=...  an extra package index for PyTorch, such as its CPU index"
	@echo "LSR_STORE=...    where the records of finished runs are kept (default: the user's cache)"

env: $(STAMP) ## create .venv and install everything into it

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than Python 3.11; choose another with PYTHON="; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) \
		-c constraints.txt -e ".[book,test]"
	@touch $@

book: env ## execute every notebook and build the book as HTML
	$(BIN)/lsr notebooks run --out book --status book/status.md
	$(BIN)/jupyter-book build -q -W -n --keep-going book
	@echo "the book: $(CURDIR)/book/_build/html/index.html"

test: env ## the tests, a few minutes
	$(PYTEST)

test-all: test ## the tests, then the slow ones with what they print
	$(BIN)/python -m pytest -m slow -s

EXACT = losses teachers memory objectives metrics statistics

coverage: env ## branch coverage of the exact parts, at least 95 %
	$(PYTEST) -q $(EXACT:%=tests/test_%.py) --cov

bench: env ## programs and losses against the ordinary way; the table of the book's status page
	$(BIN)/lsr bench --json results/bench.json

figure: env ## draw the README's figure anew from the quick preset's runs and the published ones
	$(BIN)/python -c "from lsr_core import experiments as e, figures, published; \
		trained, told = e.ladders(); photographs = e.rungs(e.CIFAR); \
		live = e.collect(e.flat(trained, told), range(e.preset('quick').seeds)); \
		results = live | published.results('desktop', photographs.values()); \
		trained['CIFAR-100, a trained teacher'] = photographs; \
		figures.save(figures.ladder(results, trained, told), 'book/_static/ladder.svg')"

lint: env ## style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean: ## remove what was built; records of finished runs stay
	rm -rf .venv book/_build book/*.ipynb book/status.md executed build *.egg-info
