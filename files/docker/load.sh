#!/bin/sh
# Take an image from an archive, if it is the one that is wanted.
# usage: load.sh ARCHIVE IMAGE LABEL_FORMAT INPUTS
docker load --quiet --input "$1" >/dev/null || exit 1
found=$(docker image inspect --format "$3" "$2" 2>/dev/null)
if [ "$found" != "$4" ]; then
  echo "$1 does not hold the image $2: apply the bundle again" >&2
  exit 1
fi
rm -f "$1"
