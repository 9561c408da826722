#!/bin/sh
# Fetch weights, going on where a broken download ended.
# usage: download.sh PART ADDRESS SHA256 MODEL REFUSED [token]
# With `token`, what curl needs to show it is on stdin.
part=$1 address=$2 sha256=$3 model=$4 refused=$5
config=
[ -z "$6" ] || config=$(cat)

fetch() {
  status=$(printf '%s\n' "$config" | curl --config - --fail --location --silent --show-error \
    --retry 3 --write-out '%{http_code}' --output "$part" "$@" "$address") && return
  code=$?
  case $status in
    401 | 403) echo "The weights of $model $refused" >&2 ;;
    404) echo "The weights of $model are not at $address: correct its source" >&2 ;;
  esac
  return "$code"
}

# A server asked to go on at the end of a complete file answers 416, an error to curl; one that can
# not go on at all makes curl end with 33 (curl(1)).
echo "$sha256  $part" | sha256sum --check --status 2>/dev/null ||
  fetch --continue-at - || { [ $? -eq 33 ] && rm -f "$part" && fetch; }
