#!/bin/sh
# Leaves a tested environment in .venv; called by `make setup`. Instant when nothing has changed.
#
#   PYTHON=python3.12   use this interpreter (default: the first of Python 3.11, 3.12, 3.13 found)
#   TORCH_INDEX=URL     take torch from this package index, such as PyTorch's own index of CPU
#                       builds: smaller than the default build, which brings CUDA libraries along
#
# Never asks: no terminal is needed. pip's and apt's full output is in .venv/setup.log.
set -eu
cd "$(dirname "$0")/.."
export DEBIAN_FRONTEND=noninteractive PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1
exec </dev/null

python=.venv/bin/python
stamp=.venv/setup.stamp
log=.venv/setup.log
started=$(date +%s)
child=

say() { printf '[setup %4d s] %s\n' $(($(date +%s) - started)) "$1"; }
stop() { printf 'setup: %s\n' "$1" >&2; exit 1; }
# An interrupted set-up leaves no installer running behind.
trap '[ -z "$child" ] || kill "$child" 2>/dev/null; exit 130' INT TERM HUP

# run TITLE COMMAND...: runs it into the log, saying what it is at while it lasts.
run() {
  title=$1
  shift
  say "$title"
  : >"$log.step"
  "$@" >"$log.step" 2>&1 &
  child=$!
  last=''
  quiet=0
  while kill -0 "$child" 2>/dev/null; do
    sleep 1
    now=$(sed -n \
      -e 's/^ *\(Downloading\|Using cached\) \([^ ]*\)\(\.whl\|\.tar\.gz\)\(\.metadata\)\{0,1\} \(([^)]*)\).*/  downloading \2 \5/p' \
      -e 's/^ *Collecting \([^ ]*\).*/  resolving \1/p' \
      -e 's/^ *Building \(wheel\|editable\) for \([^ ]*\).*/  building \2/p' \
      -e 's/^Installing collected packages: .*/  unpacking/p' \
      -e 's/^Setting up \([^ ]*\) .*/  setting up \1/p' "$log.step" | tail -n 1 | cut -c 1-90)
    quiet=$((quiet + 1))
    if [ "$now" != "$last" ] && [ "$quiet" -ge 3 ] || [ "$quiet" -ge 15 ]; then
      say "${now:-  still at it} (.venv: $(du -sm .venv | cut -f 1) MB)"
      last=$now
      quiet=0
    fi
  done
  status=0
  wait "$child" || status=$?
  child=
  cat "$log.step" >>"$log"
  if [ "$status" -ne 0 ]; then
    tail -n 15 "$log.step" >&2
    rm -f "$log.step"
    return "$status"
  fi
  rm -f "$log.step"
}

pip_install() { # pip_install TITLE ARGUMENT...
  title=$1
  shift
  run "$title" "$python" -m pip install --constraint constraints.txt "$@" ||
    stop "pip could not install what is needed; its last lines are above, all of them in $log."
}

supported() { # is "$1" a Python that we support?
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}
can_make_venv() { "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }

# How to become root without asking: "" as root, "sudo -n" where that works; fails otherwise.
become_root() {
  command -v apt-get >/dev/null 2>&1 || return 1
  if [ "$(id -u)" = 0 ]; then
    root=
  elif sudo -n true >/dev/null 2>&1; then
    root="sudo -n"
  else
    return 1
  fi
}
apt_install() { # apt_install PACKAGE...; fails where we may not
  become_root || return 1
  # An unreachable third-party source must not keep us from the packages themselves.
  $root apt-get update || true
  $root apt-get install -y --no-install-recommends "$@"
}

find_python() {
  without_venv=
  for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3 python}; do
    supported "$candidate" || continue
    if can_make_venv "$candidate"; then
      found=$candidate
      return
    fi
    without_venv=${without_venv:-$candidate}
  done
  if [ -n "$without_venv" ]; then
    package="$("$without_venv" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
    if become_root; then
      say "$without_venv cannot make virtual environments; installing $package"
      apt_install "$package" >/dev/null 2>&1 || true
    fi
    if can_make_venv "$without_venv"; then
      found=$without_venv
      return
    fi
    stop "$without_venv has no venv and ensurepip. Install the Debian package $package (python3-venv): apt-get install -y $package, then run make setup again."
  fi
  if [ -n "${PYTHON:-}" ]; then
    stop "PYTHON=$PYTHON is not a Python 3.11, 3.12 or 3.13 that runs here. Name another, or leave PYTHON out."
  fi
  stop "found no Python 3.11, 3.12 or 3.13. Install one (Debian 12: apt-get install -y python3 python3-venv), or name it: make setup PYTHON=/path/to/python3.11"
}

# What the environment was made from; the folder is in it because a venv cannot be moved.
key() {
  {
    cat pyproject.toml constraints.txt scripts/setup.sh
    "$1" -c 'import sys; print(sys.version)'
    echo "${TORCH_INDEX:-} $(pwd)"
  } | sha256sum | cut -d ' ' -f 1
}

# An environment that runs is kept, whatever Python comes first, unless PYTHON asks for another.
found=
if supported "$python"; then
  if [ -z "${PYTHON:-}" ] || [ "$("$PYTHON" -V 2>&1)" = "$("$python" -V)" ]; then
    found=$python
    if [ "$(cat "$stamp" 2>/dev/null)" = "$(key "$python")" ]; then
      exit 0
    fi
  fi
fi
if [ -z "$found" ]; then
  find_python
  say "making .venv with $("$found" -V) ($found)"
  rm -rf .venv
  "$found" -m venv .venv || stop "$found could not make a virtual environment in .venv."
fi
rm -f "$stamp"
: >"$log"

# Old versions of pip take minutes to resolve what a new one does in seconds.
pip_install "updating pip" --upgrade pip
torch=$(grep '^torch==' constraints.txt)
# Torch comes first and alone: from its own index it must not decide where the rest comes from.
pip_install "installing $torch (the largest part; minutes on a slow line)" \
  ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$torch"
pip_install "installing loopdit and its tools" --build-constraint constraints.txt --editable '.[dev]'

probe_gl() { gl=$("$python" -m loopdit.envs.gl 2>"$log.gl"); }
say "looking for a headless OpenGL"
if ! probe_gl && [ -z "${MUJOCO_GL:-}" ] && become_root; then
  packages=$("$python" -c 'from loopdit.envs.gl import PACKAGES; print(PACKAGES)')
  # shellcheck disable=SC2086 # the packages are words of their own
  run "none renders; installing $packages" apt_install $packages ||
    stop "could not install them. Run as root: apt-get install -y --no-install-recommends $packages"
  probe_gl || true
fi
[ -n "$gl" ] || stop "$(cat "$log.gl")"
rm -f "$log.gl"
key "$python" >"$stamp"
say "ready: $("$python" -V) in .venv, OpenGL by $gl"
