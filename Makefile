# Commands of inferd. `make serve` and `make test` work on a fresh machine with Python 3.11 or
# newer, pip, make and a C compiler; everything else builds on the same virtual environment.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
SOURCES := src tests scripts benchmarks

.PHONY: serve test test-diffusers test-transformers check fix chaos clients hostile fuzz bench bench-embeddings bench-engine bench-footprint bench-images bench-money bench-soak bench-speech-recognition bench-text-to-speech bench-usage clean

serve: .venv/installed
	$(BIN)/inferd serve

test: .venv/developing
	$(BIN)/pytest -m "not chaos and not clients and not hostile and not fuzz and not diffusers and not transformers"

test-diffusers: .venv-diffusers/installed
	.venv-diffusers/bin/pytest -m diffusers tests/diffusers

test-transformers: .venv-transformers/installed
	.venv-transformers/bin/pytest -m transformers tests/transformers

check: .venv/developing
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python scripts/check_sizes.py
	$(BIN)/python scripts/openapi.py --check
	$(BIN)/python scripts/settings_example.py --check

fix: .venv/developing
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/python scripts/openapi.py
	$(BIN)/python scripts/settings_example.py

chaos: .venv/developing
	$(BIN)/pytest -m chaos -s

clients: .venv-clients/installed .venv-clients-openai-2/installed
	.venv-clients/bin/pytest -m clients -rs tests/clients
	.venv-clients-openai-2/bin/pytest -m clients -rs tests/clients

hostile: .venv/developing
	$(BIN)/pytest -m hostile -s tests/hostile

fuzz: .venv-fuzz/installed
	.venv-fuzz/bin/pytest -m fuzz -rs tests/hostile/test_fuzz.py

bench: .venv/developing
	$(BIN)/python benchmarks/gateway/run.py

bench-embeddings: .venv/developing
	$(BIN)/python benchmarks/embeddings/run.py

bench-engine: .venv/developing
	$(BIN)/python benchmarks/engine/run.py

bench-images: .venv/developing
	$(BIN)/python benchmarks/images/run.py

bench-money: .venv/developing
	$(BIN)/python benchmarks/money/run.py

bench-soak: .venv/developing
	$(BIN)/python benchmarks/soak/run.py --keep

bench-speech-recognition: .venv/developing
	$(BIN)/python benchmarks/speech_recognition/run.py

bench-text-to-speech: .venv/developing
	$(BIN)/python benchmarks/text_to_speech/run.py

bench-usage: .venv/developing
	$(BIN)/python benchmarks/usage/run.py

bench-footprint: .venv/developing
	$(BIN)/python benchmarks/footprint/run.py

.venv/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "inferd needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	@touch $@

.venv/installed: .venv/made pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[starter]"
	@touch $@

.venv/developing: .venv/made pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[starter]" --group dev
	@touch $@ .venv/installed

# An environment for each group of clients, away from the tools of development.
.venv-%/installed: pyproject.toml
	test -x .venv-$*/bin/python || $(PYTHON) -m venv .venv-$*
	@echo '*' > .venv-$*/.gitignore
	.venv-$*/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	.venv-$*/bin/python -m pip install --quiet --editable ".[starter]" --group $*
	@touch $@

clean:
	rm -rf .venv .venv-clients .venv-clients-openai-2 .venv-fuzz .venv-diffusers .venv-transformers .pytest_cache .ruff_cache .hypothesis .import_linter_cache
