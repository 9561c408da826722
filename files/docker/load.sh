#!/bin/sh
# Load an image from an archive and check that it is the declared one.
# usage: load.sh ARCHIVE IMAGE LABEL_FORMAT INPUTS
docker load --quiet --input "$1" >/dev/null || exit 1
found=$(docker image inspect --format "$3" "$2" 2>/dev/null)
if [ "$found" != "$4" ]; then
  echo "$1 does not contain the image $2: rerun llmhost bundle apply" >&2
  exit 1
fi
rm -f "$1"
