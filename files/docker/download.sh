#!/bin/sh
# Download weights; continue an interrupted download.
# usage: download.sh PART ADDRESS SHA256 MODEL REFUSED [token]
# With `token`, stdin contains curl's configuration with it.
part=$1 address=$2 sha256=$3 model=$4 refused=$5
config=
[ -z "$6" ] || config=$(cat)

fetch() {
  status=$(printf '%s\n' "$config" | curl --config - --fail --location --silent --show-error \
    --retry 3 --write-out '%{http_code}' --output "$part" "$@" "$address") && return
  code=$?
  case $status in
    401 | 403) echo "The weights of $model $refused" >&2 ;;
    404) echo "The weights of $model were not found at $address: correct its source" >&2 ;;
  esac
  return "$code"
}

# If the file is already complete, the server answers 416, an error for curl; if the server does not
# support ranges, curl exits with 33 (curl(1)).
echo "$sha256  $part" | sha256sum --check --status 2>/dev/null ||
  fetch --continue-at - || { [ $? -eq 33 ] && rm -f "$part" && fetch; }
