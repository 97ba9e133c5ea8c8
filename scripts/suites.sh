#!/bin/sh
# Makes the environments of public simulation suites, .suites/<suite>; called by `make suites`.
#
#   sh scripts/suites.sh metaworld robosuite    (none named: all but those that need assets)
#
# Their pins of MuJoCo exclude each other, so each has an environment of its own with the exact
# versions of scripts/suites/<suite>.txt and loopdit's bare install; docs/suites.md says which runs
# what. Instant when nothing has changed. pip's output is in .suites/<suite>/setup.log.
#
#   PYTHON=python3.12    use this interpreter (default: python3.11)
#   LOOPDIT_SUITES=DIR   put them there instead of into .suites
set -eu
cd "$(dirname "$0")/.."
export PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1
exec </dev/null

suites=${LOOPDIT_SUITES:-.suites}
stop() { printf 'suites: %s\n' "$1" >&2; exit 1; }

make_suite() {
  pins=scripts/suites/$1.txt
  [ -f "$pins" ] || stop "there is no suite $1. There are: $(cd scripts/suites && echo *.txt | sed 's/\.txt//g')."
  place=$suites/$1
  log=$place/setup.log
  key=$( (cat "$pins" scripts/suites.sh && echo "$python $(pwd)") | sha256sum | cut -d ' ' -f 1)
  if [ "$(cat "$place/setup.stamp" 2>/dev/null)" = "$key" ]; then
    return
  fi
  echo "suites: installing $1 into $place"
  rm -rf "$place"
  "$python" -m venv "$place" || stop "$python could not make a virtual environment in $place."
  # Old versions of pip take minutes to resolve what a new one does in seconds. The pins are whole:
  # nothing else is resolved, so that what a package asks for in vain is not in the way.
  {
    "$place/bin/python" -m pip install --upgrade pip==26.3 &&
      "$place/bin/python" -m pip install --no-deps --requirement "$pins" &&
      "$place/bin/python" -m pip install --no-deps --editable .
  } >"$log" 2>&1 || { tail -n 15 "$log" >&2; stop "pip could not install $1; all it said is in $log."; }
  echo "$key" >"$place/setup.stamp"
}

python=${PYTHON:-python3.11}
"$python" -c '' 2>/dev/null || stop "PYTHON=$python does not run here. Name a Python 3.11, 3.12 or 3.13."
[ $# -gt 0 ] || set -- metaworld robosuite aloha gymnasium robotics dm_control
for suite in "$@"; do
  make_suite "$suite"
done
