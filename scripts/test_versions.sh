#!/usr/bin/env bash
# The suite collected, and its core (-m fast) run, in environments of their own below .versions:
#
#   lowest    the lowest versions that pyproject.toml declares, on the lowest Python
#   newest    the newest versions that it allows, on the same
#   py313     the newest versions on Python 3.13
#
#   scripts/test_versions.sh UV [lowest|newest|py313]...      some of them; 6 GB of disk each, most of it PyTorch
set -euo pipefail
cd "$(dirname "$0")/.."
uv=$1
shift
[ $# -gt 0 ] || set -- lowest newest py313
for name in "$@"; do
  case $name in
    lowest) python=3.11 resolution=lowest-direct ;;
    newest) python=3.11 resolution=highest ;;
    py313) python=3.13 resolution=highest ;;
    *) echo "test_versions.sh: expected lowest, newest or py313; got $name" >&2; exit 2 ;;
  esac
  echo "$name: Python $python, $resolution"
  "$uv" venv --quiet --allow-existing --python "$python" ".versions/$name"
  "$uv" pip install --quiet --python ".versions/$name/bin/python" --resolution "$resolution" --upgrade --editable '.[dev]'
  ".versions/$name/bin/python" -m pytest -p no:cacheprovider -n 0 --collect-only >/dev/null
  ".versions/$name/bin/python" -m pytest -p no:cacheprovider -n 0 -m fast
done
