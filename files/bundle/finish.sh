#!/bin/sh
# Keep a part that has arrived if it is what it should be.
# usage: finish.sh FILE SHA256
if echo "$2  $1.part" | sha256sum --check --status; then
  mv -f "$1.part" "$1"
else
  rm -f "$1.part"
  echo "$1 arrived damaged: apply the bundle again" >&2
  exit 1
fi
