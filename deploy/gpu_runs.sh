#!/usr/bin/env bash
# Trains a recipe on a GPU that is lent for minutes, and measures it:
#   deploy/gpu_runs.sh RECIPE DATA [key=value ...] [-- options of `advsentry-train robustness`]
# Writes runs/NAME and docs/results/NAME.json, NAME being the recipe or what the environment says (NAME=cifar10-at-s1).
# A call ends in LIMIT seconds (default 560), half a minute later at most; with status 75 where that was too short, and
# then the same call goes on from there.
set -eu
cd "$(dirname "$0")/.."
recipe=${1:?expected a recipe, such as cifar10-tla-sar} data=${2:?expected the folder of the data}
shift 2
name=${NAME:-$recipe} limit=${LIMIT:-560} train=${TRAIN:-.venv/bin/advsentry-train}
result=${RESULTS:-docs/results}/$name.json
overrides=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do overrides+=("$1"); shift; done
[ $# -eq 0 ] || shift
[ ! -e "$result" ] || { echo "$result is there already" >&2; exit 0; }

# Runs a command for what is left of the limit. An interrupt makes fit finish its step and save.
within() {
  local status=0
  timeout --signal=INT --kill-after=30 "$((SECONDS < limit ? limit - SECONDS : 1))" "$@" || status=$?
  if [ $status = 124 ] || [ $status = 137 ]; then
    echo "$name: $limit seconds are over; the same call again goes on" >&2
    exit 75
  fi
  return $status
}

within "$train" fit "$recipe" --out "runs/$name" --data "$data" "${overrides[@]}"
within "$train" robustness "runs/$name" --out "$result" --data "$data" "$@"
