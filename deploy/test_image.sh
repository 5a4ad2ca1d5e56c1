#!/usr/bin/env bash
# Builds the image of target cpu and tries it: deploy/test_image.sh [--result FILE]
# The base is Debian's python3, from debootstrap, unless BASE_IMAGE names another; no container engine is needed. What pip is
# told on this machine (index, certificates) is handed to the build as secrets. Work lies in build/image.
set -eu
cd "$(dirname "$0")/.."
missing=
for tool in buildah debootstrap unshare chroot; do
  command -v "$tool" > /dev/null || missing="$missing $tool"
done
if [ -n "$missing" ]; then
  echo "test-image: skipped: there is no$missing here (Debian: apt-get install buildah debootstrap)" >&2
  exit 0
fi
if [ "$(id -u)" != 0 ]; then
  echo "test-image: skipped: it takes root, for chroot and debootstrap" >&2
  exit 0
fi
exec "${PYTHON:-.venv/bin/python}" -m deploy.image "$@"
