#!/bin/sh
# Keep a transferred part if its digest is right.
# usage: finish.sh FILE SHA256
if echo "$2  $1.part" | sha256sum --check --status; then
  mv -f "$1.part" "$1"
else
  rm -f "$1.part"
  echo "$1 was damaged in transfer: rerun llmhost bundle apply" >&2
  exit 1
fi
