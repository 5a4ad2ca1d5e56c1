#!/usr/bin/env bash
# Makes every published figure of the related systems from nothing: deploy/related/all.sh DATA
# One script after another, most of a day on two cores; what is there already is left alone: the same command goes on
# where it was stopped.
set -eu
cd "$(dirname "$0")"
data=$(cd "${1:?expected the folder of the data}" && pwd)
./deep-pursuit.sh "$data"
./min-max.sh "$data"
./localized.sh "$data"
./metric_learning.sh "$data"
./proxy.sh "$data"
