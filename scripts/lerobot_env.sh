#!/bin/sh
# Makes .suites/lerobot, where LeRobot's own reader and policy run: sh scripts/lerobot_env.sh
#
# LeRobot cannot be in our environment: it needs a torchvision that fits its torch, and half a
# gigabyte of drivers of robots. Here are its data set module, its diffusion policy and what those
# import, in the versions of lerobot_env.txt, without what it asks for in vain. torchvision's
# compiled part does not load beside this torch; who imports it defines the one operator that is
# missed (lerobot_windows.py).
# Instant when nothing has changed. pip's output is in .suites/lerobot/setup.log.
#
#   PYTHON=python3.11    use this interpreter
#   TORCH_INDEX=URL      take torch from this package index
#   LOOPDIT_SUITES=DIR   put it there instead of into .suites
set -eu
cd "$(dirname "$0")/.."
export PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1
exec </dev/null

python=${PYTHON:-python3.11}
place=${LOOPDIT_SUITES:-.suites}/lerobot
log=$place/setup.log
key=$( (cat scripts/lerobot_env.sh scripts/lerobot_env.txt && echo "$python $(pwd)") | sha256sum)
[ "$(cat "$place/setup.stamp" 2>/dev/null)" != "$key" ] || exit 0
stop() { printf 'lerobot_env: %s\n' "$1" >&2; exit 1; }

echo "lerobot_env: installing into $place"
rm -rf "$place"
"$python" -m venv "$place" || stop "$python could not make a virtual environment in $place."
{
  "$place/bin/python" -m pip install --upgrade pip==26.3 &&
    "$place/bin/python" -m pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch==2.13.0 &&
    "$place/bin/python" -m pip install --no-deps --requirement scripts/lerobot_env.txt
} >"$log" 2>&1 || { tail -n 15 "$log" >&2; stop "pip could not install it; all it said is in $log."; }
echo "$key" >"$place/setup.stamp"
