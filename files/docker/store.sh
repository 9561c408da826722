#!/bin/sh
# Get weights from the site's store. If it does not have them, write why to WHOLE.note and succeed:
# they then come from their source.
# usage: store.sh PART WHOLE SHA256 ADDRESS
# ADDRESS is a path, or a URL whose configuration for curl is on stdin.
part=$1 whole=$2 sha256=$3 address=$4
config=
case $address in /*) ;; *) config=$(cat) ;; esac

without() {
  rm -f "$part"
  echo "$1" >"$whole.note"
  exit 0
}

without_answer() {
  : >"$silent"
  without "the model store does not answer at $address$1"
}

right() {
  found=$(sha256sum "$part" 2>/dev/null)
  found=${found%% *}
  [ "$found" = "$sha256" ]
}

# The URL is in the configuration, because it may be a secret.
fetch() {
  status=$(printf '%s\n' "$config" | curl --config - --globoff --fail --location --silent --show-error \
    --retry 3 --connect-timeout 20 --speed-limit 1 --speed-time 60 \
    --write-out '%{http_code}' --output "$part" "$@" 2>"$part.errors")
  code=$?
  errors=$(tail -n 1 "$part.errors")
  rm -f "$part.errors"
  return "$code"
}

rm -f "$whole.note"
# Each file would wait for minutes again.
silent=${whole%/*}/store.silent
[ ! -e "$silent" ] || without "the model store did not answer before"
case $address in
  /*)
    # The server of a share may be down.
    timeout 20 test -e "$address"
    case $? in
      0) ;;
      124) without_answer "" ;;
      *) without "the model store has no $address" ;;
    esac
    # The path is in the message of cp.
    errors=$(cp -- "$address" "$part" 2>&1) || without "the model store cannot be read: $errors"
    ;;
  *)
    # A part is left from an interrupted run. It may be complete, or of a file that was replaced, and
    # some servers do not support ranges.
    right || { [ -e "$part" ] && fetch --continue-at - && right; } || { rm -f "$part"; fetch; } ||
      case $code/$status in
        23/*) without "the host cannot write $part: its disk may be full" ;;
        */404) without "the model store has no $address" ;;
        */401 | */403) without "the model store answered $status for $address: check model_store_key_id \
and model_store_key, and that they may read and list it" ;;
        *) without_answer ": $errors" ;;
      esac
    ;;
esac
right ||
  without "the model store is wrong: $address has the SHA-256 $found; replace it with: \
llmhost model store INVENTORY --update"
mv -f "$part" "$whole"
