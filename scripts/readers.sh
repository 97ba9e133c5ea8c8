#!/bin/sh
# Makes what reads our exports as their users do, in .suites/readers; `make test-adapters` calls it.
#
#   robomimic   0.3.0 from PyPI, in a folder to put on the path of .venv: it needs our torch and h5py
#   zarr2       an environment with zarr 2.18, which Diffusion Policy's replay buffer is written for
#
# Instant when nothing has changed. pip's output is in .suites/readers/setup.log.
#
#   PYTHON=python3.12    make the environment with this interpreter (default: python3.11)
#   LOOPDIT_SUITES=DIR   put them there instead of into .suites
set -eu
cd "$(dirname "$0")/.."
export PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1
exec </dev/null

place=${LOOPDIT_SUITES:-.suites}/readers
log=$place/setup.log
python=${PYTHON:-python3.11}
stop() { printf 'readers: %s\n' "$1" >&2; exit 1; }
fail() { tail -n 15 "$log" >&2; stop "pip could not install $1; all it said is in $log."; }

key=$( (cat scripts/readers.sh && echo "$python $(pwd)") | sha256sum | cut -d ' ' -f 1)
if [ "$(cat "$place/setup.stamp" 2>/dev/null)" = "$key" ]; then
  exit 0
fi
echo "readers: installing robomimic and zarr 2 into $place"
rm -rf "$place"
mkdir -p "$place"
# Without dependencies: robomimic asks for torchvision, which its reader does not import.
.venv/bin/python -m pip install --no-deps --target "$place/robomimic" \
  robomimic==0.3.0 termcolor==3.3.0 >"$log" 2>&1 || fail robomimic
"$python" -m venv "$place/zarr2" || stop "$python could not make a virtual environment in $place."
"$place/zarr2/bin/python" -m pip install zarr==2.18.7 numcodecs==0.15.2 numpy==2.4.6 \
  >>"$log" 2>&1 || fail "zarr 2"
echo "$key" >"$place/setup.stamp"
