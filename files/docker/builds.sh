#!/bin/sh
# Run builds side by side until standard input ends; those that still run then are killed, and with
# their connections to Docker their builds end.
# Each input line is the name of a build, the script DIRECTORY/NAME.build. Prints `ready THREADS MEMORY`
# first, and for each build that has ended `ended NAME STATUS MEMORY OUTPUT`: the available memory in
# KiB, and in base64 the end of what the build has printed: a controller reads long lines slowly.
# usage: builds.sh DIRECTORY
memory='s/^MemAvailable: *\([0-9]*\).*/\1/p'

# shellcheck disable=SC2016 # It is what the new shell expands.
build='
echo $$ >"$TMPDIR/$2.group"
sh "$1/$2.build" >"$TMPDIR/$2.log" 2>&1 </dev/null
status=$?
(: >"$TMPDIR/$2.ended") # in a shell of its own, which alone ends if that fails
output=$(tail -c 500000 "$TMPDIR/$2.log" | base64 -w 0)
exec 9<"$1"
flock 9 # so that lines do not mix
echo "ended $2 $status $(sed -n "$3" /proc/meminfo) $output"'

stop() {
  trap '' TERM INT HUP
  # The number of an ended build may be that of another process by now.
  for file in "$TMPDIR"/*.group; do
    [ -e "$file" ] && [ ! -e "${file%.group}.ended" ] || continue
    kill -s KILL -- "-$(cat "$file")" 2>/dev/null
  done
  wait
  rm -rf "$TMPDIR"
  exit 0
}

# What a killed build leaves here is removed, too.
TMPDIR=$(mktemp -d) || exit
export TMPDIR
trap stop TERM INT HUP
echo "ready $(nproc) $(sed -n "$memory" /proc/meminfo)"
while read -r name; do
  (
    # With a process group of its own, which has all that the build starts.
    setsid sh -c "$build" build "$1" "$name" "$memory" && exit
    exec 9<"$1"
    flock 9
    echo "ended $name 1 $(sed -n "$memory" /proc/meminfo) $(echo 'the build was killed' | base64)"
  ) &
done
stop
