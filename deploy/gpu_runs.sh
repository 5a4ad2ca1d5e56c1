#!/usr/bin/env bash
# Trains a recipe on a GPU that is lent for minutes, and measures it:
#   deploy/gpu_runs.sh RECIPE DATA [key=value ...] [-- options of `advsentry-train robustness`]
# Writes runs/NAME and docs/results/NAME.json, NAME being the recipe or what the environment says (NAME=cifar10-at-s1).
# Or puts the trunk of a bundle in float16, and measures on the GPU what that gains and loses:
#   deploy/gpu_runs.sh fp16 DATA BUNDLE RUN [options of `deploy.int8_check`]
# Writes bundles/NAME and docs/results/NAME.json, NAME being BUNDLE-fp16; RUN is what BUNDLE was exported from.
# A call ends in LIMIT seconds (default 560), half a minute later at most; with status 75 where that was too short, and
# then the same call goes on from there.
set -eu
cd "$(dirname "$0")/.."
recipe=${1:?expected a recipe, such as cifar10-tla-sar, or fp16} data=${2:?expected the folder of the data}
shift 2
limit=${LIMIT:-560} train=${TRAIN:-.venv/bin/advsentry-train} python=${PYTHON:-.venv/bin/python}

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

# Leaves alone what was measured before; $result is its file.
unless_measured() {
  [ ! -e "$result" ] || { echo "$result is there already" >&2; exit 0; }
}

if [ "$recipe" = fp16 ]; then
  bundle=${1:?expected a bundle, such as gtsrb} run=${2:?expected the run that the bundle was exported from}
  shift 2
  name=${NAME:-$(basename "$bundle")-fp16}
  result=${RESULTS:-docs/results}/$name.json
  unless_measured
  within "$train" export "$run" --out "bundles/$name" --fp16 --like "$bundle" --data "$data" --force
  within "$python" -m deploy.int8_check "$bundle" "bundles/$name" --run "$run" --data "$data" --device cuda \
    --result "$result" "$@"
  exit
fi

name=${NAME:-$recipe}
result=${RESULTS:-docs/results}/$name.json
overrides=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do overrides+=("$1"); shift; done
[ $# -eq 0 ] || shift
unless_measured
within "$train" fit "$recipe" --out "runs/$name" --data "$data" "${overrides[@]}"
within "$train" robustness "runs/$name" --out "$result" --data "$data" "$@"
