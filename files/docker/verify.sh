#!/bin/sh
# Keep a transferred file only if its digest is the declared one.
# usage: verify.sh PART WHOLE SHA256 MODEL
[ -e "$1" ] || exit 0
found=$(sha256sum "$1")
found=${found%% *}
if [ "$found" != "$3" ]; then
  rm -f "$1"
  echo "The weights of $4 have the SHA-256 $found, not $3:" \
    "correct its pins or its source in models" >&2
  exit 1
fi
mv -f "$1" "$2"
