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
# Finer than the level of 0.005 that flags are raised at: among 200 streams that one's threshold is the largest evidence
# of any, and what is largest of heavy tails is far too large; and operators may choose a stricter level.
level=0.001
[ $# -gt 0 ] || set -- digits mnist gtsrb gtsrb-int8
for bundle; do
  case $what in
    calibrate) .venv/bin/advsentry-train history "$bundle" --level "$level" ;;
    check) .venv/bin/advsentry-train history "$bundle" --check --result "docs/results/history-benign-$bundle.json" ;;
    *) echo "expected calibrate or check, got $what" >&2; exit 2 ;;
  esac
done
