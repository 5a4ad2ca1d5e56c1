#!/usr/bin/env bash
# The query history of shipped bundles, all of them where none is named:
#   deploy/history.sh calibrate DATA [BUNDLE ...]   writes service/bundles/BUNDLE/history.npz
#   deploy/history.sh check DATA [BUNDLE ...]       writes docs/results/history-benign-BUNDLE.json
# Commit the bundles between, so that the results name the commit that has them.
set -eu
cd "$(dirname "$0")/.."
what=${1:?expected calibrate or check}
export ADVSENTRY_DATA=${2:?expected the folder of the data} OMP_NUM_THREADS=1
shift 2
[ $# -gt 0 ] || set -- digits mnist gtsrb gtsrb-int8
for bundle; do
  case $what in
    calibrate) .venv/bin/advsentry-train history "$bundle" ;;
    check) .venv/bin/advsentry-train history "$bundle" --check --result "docs/results/history-benign-$bundle.json" ;;
    *) echo "expected calibrate or check, got $what" >&2; exit 2 ;;
  esac
done
