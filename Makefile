# Every environment is made inside the checkout, at the versions of constraints.txt.
#   make PYTHON=python3.12 demo     another interpreter, 3.10 or newer
#   make TORCH_INDEX= test          torch as PyPI has it: with CUDA on Linux
#   make DATA=FOLDER quality        the data of the benchmarks, which the repository does not hold

PYTHON ?= python3

# Without a GPU, torch comes from the index that holds its CPU builds, a tenth of the size. Where that index
# cannot be reached, pip says so and takes what its own configuration offers.
TORCH_INDEX ?= $(shell nvidia-smi -L > /dev/null 2>&1 || echo https://download.pytorch.org/whl/cpu)

FRAME := examples/demo/bmpcc_gbrg_12b_ljpeg_lintable.dng
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
DEMO := .venv-demo/ready-$(VERSION)
DEVELOP := .venv/ready-$(VERSION)
PIP := -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: help demo test check lint types imports slow format mini quality corpus precision runtime soak rtx clean

help:  ## print these lines
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1	\2/' | expand -t 18

demo: $(DEMO)  ## denoise a real RAW frame and draw it before and after, in out/
	@mkdir -p out
	.venv-demo/bin/cycleisp denoise $(FRAME) --model edge --output out/demo.dng --force
	.venv-demo/bin/python examples/demo/before_after.py $(FRAME) out/demo.dng out/demo_before_after.png

test: check  ## what a change must pass: the static checks, then every test that is not slow
	.venv/bin/python -m pytest

check: lint types imports  ## the static checks alone

lint: $(DEVELOP)  ## style and formatting
	.venv/bin/ruff check
	.venv/bin/ruff format --check

types: $(DEVELOP)  ## mypy, strict
	.venv/bin/mypy
	.venv/bin/mypy benchmarks examples

imports: $(DEVELOP)  ## which package may import which
	.venv/bin/lint-imports

slow: $(DEVELOP)  ## the proofs that take minutes
	.venv/bin/python -m pytest -m slow

format: $(DEVELOP)  ## rewrite the sources as `make lint` wants them
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

mini: $(DEVELOP)  ## train every stage in minutes, from what the repository holds
	.venv/bin/python -m benchmarks.mini

quality: $(DEVELOP)  ## dB and ms per MP of the shipped models beside NLM and PMRID
	.venv/bin/python -m benchmarks.quality $(addprefix --data ,$(DATA))

corpus: $(DEVELOP)  ## what becomes of every RAW file of a corpus, in a table
	.venv/bin/python -m benchmarks.corpus --identity $(addprefix --data ,$(DATA))

precision: $(DEVELOP)  ## what FP16 and INT8 cost in dB and save in time
	.venv/bin/python -m benchmarks.precision $(addprefix --data ,$(DATA))

runtime: $(DEVELOP)  ## what the runtime costs beyond the network, and its peak memory
	.venv/bin/python -m benchmarks.runtime_overhead
	.venv/bin/python -m benchmarks.memory

soak: $(DEVELOP)  ## 10,000 streamed frames: memory and p99
	.venv/bin/python -m benchmarks.stream_soak

rtx: $(DEVELOP)  ## engines by the real TensorRT-RTX, without a GPU
	.venv/bin/python $(PIP) tensorrt-rtx
	.venv/bin/python -m pytest tests/runtime/test_trt_real.py tests/runtime/test_cuda_drivers.py tests/export/test_rtx_engines.py -m "slow or not slow"

clean:  ## remove the environments, caches and outputs
	rm -rf .venv .venv-demo build dist out *.egg-info .*_cache .hypothesis

# A fresh environment in the folder of the target, with the build backend that the checkout is installed by.
define new_environment
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python $(PIP) setuptools
endef

$(DEMO): setup.cfg pyproject.toml constraints.txt
	$(new_environment)
	$(@D)/bin/python $(PIP) --no-build-isolation --editable .
	@touch $@

$(DEVELOP): setup.cfg pyproject.toml constraints.txt
	$(new_environment)
	$(@D)/bin/python $(PIP) --no-deps --retries 1 --timeout 15 $(addprefix --extra-index-url ,$(TORCH_INDEX)) torch
	$(@D)/bin/python $(PIP) --no-build-isolation --editable '.[train,export,bench,test]'
	@touch $@
