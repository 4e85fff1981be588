#!/usr/bin/env bash
# Sets everything up in .venv, then:
#   ./run.sh             the embedded demo, from generated recordings to a skeleton-only bundle and its numbers
#   ./run.sh test …      the tests (arguments go to pytest)
#   ./run.sh fuzz …      mutated files for every reader: --minutes N --seed S; finds go to fuzz-finds/
#   ./run.sh lint        ruff and mypy
#   ./run.sh docs        the documentation into site/, warnings as errors
#   ./run.sh lock        constraints.txt: the versions that are installed, which the tests were run with
#   ./run.sh VERB …      mmcl VERB … in that environment (./run.sh --help lists the verbs)
# MMCL_PYTHON names another interpreter (default python3), MMCL_VENV another place for the environment (absolute).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)  # verbs run in the caller's folder, so that its paths work
venv=${MMCL_VENV:-$root/.venv}

setup() {
  # Installed once per version of pyproject.toml: the stamp is written last, so an interrupted set-up starts over.
  local stamp="$venv/.mmcl-installed"
  if [ -f "$stamp" ] && cmp -s "$root/pyproject.toml" "$stamp"; then return; fi
  echo "setting up $venv (a few minutes and about 6 GB the first time)" >&2
  [ -x "$venv/bin/python" ] || "${MMCL_PYTHON:-python3}" -m venv "$venv"
  "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    { echo "error: mmcl needs Python 3.10 or newer; name one with MMCL_PYTHON=python3.x ./run.sh" >&2; exit 2; }
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e "$root[test]" >&2
  cp "$root/pyproject.toml" "$stamp"
}

setup
export PATH="$venv/bin:$PATH"
export TOKENIZERS_PARALLELISM=${TOKENIZERS_PARALLELISM:-false}

case "${1:-demo}" in
  # One process more than there are cores, since tests wait for processes that they start, and four at most; each has
  # whole files of tests, so that what the tests of a file share is made once.
  test) shift; cd "$root"; export HF_HUB_OFFLINE=1; exec "$venv/bin/python" -m pytest -n "$(($(getconf _NPROCESSORS_ONLN) + 1))" --maxprocesses 4 --dist loadfile --no-loadscope-reorder "$@" ;;
  fuzz) shift; PYTHONPATH="$root/tests${PYTHONPATH:+:$PYTHONPATH}" exec "$venv/bin/python" -m fuzz "$@" ;;
  lint) cd "$root"; "$venv/bin/ruff" check . && exec "$venv/bin/mypy" ;;
  docs) cd "$root"; exec "$venv/bin/python" -m mkdocs build --strict ;;
  lock) cd "$root"; { echo "# What the tests were last run with: pip install -c constraints.txt -e '.[test]'"
          "$venv/bin/python" -m pip freeze --exclude-editable | sed 's/ @ .*//' | grep == ; } > constraints.txt ;;
  *)    exec "$venv/bin/python" -m mmcl "${@:-demo}" ;;
esac
