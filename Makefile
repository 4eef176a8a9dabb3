# Everything a person or the CI runs. The first target that needs Python packages sets them up in .venv, once.
PYTHON ?= python3
PY := .venv/bin/python
SCALE ?= 1
SOURCE ?= data/example
IMAGES ?= 9216
IN_PARALLEL := --numprocesses $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1) --dist loadfile --no-loadscope-reorder --ignore tests/soak

.PHONY: example test test-lowest test-newest check format docs pictures soak soak-others bench dist clean

.venv/installed: pyproject.toml $(wildcard pipeline/system/_*.c)
	test -x $(PY) || $(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

example: .venv/installed  ## build the cache of data/example and train on it, ending with the loss curve as a picture
	$(PY) cli.py build-cache data/example
	$(PY) cli.py train --batch-size 8

test: .venv/installed  ## all tests but the long ones, which make soak runs
	$(PY) -m pytest $(IN_PARALLEL) -m "not long"

# Old packages warn of what newer ones deprecate, and the newest of what will go: here these warnings are no errors.
test-lowest test-newest: .venv/installed  ## the same with the lowest (newest) versions that pyproject.toml admits; needs 6 GB
	$(PY) -m pip install --quiet --disable-pip-version-check uv
	$(PY) -m uv venv --quiet --clear --seed --python $(PYTHON) build/$@
	$(PY) -m uv pip compile --quiet --extra dev --only-binary :all: --python build/$@/bin/python -o build/$@.txt \
		--resolution $(if $(findstring lowest,$@),lowest-direct,highest) pyproject.toml
	$(PY) -m uv pip install --quiet --python build/$@/bin/python -r build/$@.txt --editable .
	build/$@/bin/python -m pytest $(IN_PARALLEL) -m "not long" -W default::DeprecationWarning -W default::FutureWarning

check: .venv/installed  ## format, lint, types
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy

format: .venv/installed
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

docs: .venv/installed  ## the documentation as a site in build/docs; a warning is an error
	$(PY) -m sphinx --fresh-env --fail-on-warning --keep-going --quiet docs build/docs
	@echo "open build/docs/index.html"

pictures: .venv/installed  ## docs/images and README's table of speeds; needs Chromium
	$(PY) -m docs.pictures

soak: .venv/installed  ## the long tests; kills, power cuts, failing disks, damaged files by the thousand; SCALE=0.05 for less
	$(PY) -m pytest $(IN_PARALLEL) -m long
	$(PY) -m pytest tests/soak --soak-scale $(SCALE) -s

soak-others: .venv/installed  ## our loader under Lightning, Accelerate and timm, as docs/other-trainers.md shows it
	$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[trainers]'
	$(PY) -m pytest tests/soak/test_other_trainers.py --soak-scale 1

bench: .venv/installed  ## measure against other systems: SOURCE=FOLDER of photographs, replicated to IMAGES; ONLY=PART,...
	$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[bench-ffcv]' \
		|| echo "FFCV cannot be built here (libopencv-dev, libturbojpeg0-dev, pkg-config, a compiler); it is left out"
	$(PY) -m benchmarks $(SOURCE) --images $(IMAGES) $(if $(ONLY),--only $(ONLY)) $(if $(WEIGHTS),--weights $(WEIGHTS))

dist: .venv/installed  ## dist/: the source archive, and a wheel for this platform and any Python
	rm -rf dist build/dist
	$(PY) -m build --outdir build/dist
	mkdir dist && cp build/dist/*.tar.gz dist
ifeq ($(shell uname),Linux)
	PATH="$(CURDIR)/.venv/bin:$$PATH" $(PY) -m auditwheel repair --wheel-dir dist build/dist/*.whl
else
	cp build/dist/*.whl dist
endif

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
