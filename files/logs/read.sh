# shellcheck disable=SC2317 # functions are called by the name in KIND
# Print a log of this host, and with FOLLOW what is added until standard input is closed.
# usage: read.sh KIND NAME LINES SECONDS PATTERN FOLLOW
# KIND is container or gateway, NAME a container or a file. LINES is a number or `all`; SECONDS limits
# the age, PATTERN is an extended regular expression; both may be empty, and so may FOLLOW.
kind=$1 name=$2 lines=$3 seconds=$4 pattern=$5 follow=$6

container() {
    exec docker logs --tail "$lines" ${seconds:+--since "${seconds}s"} ${follow:+--follow} "$name" 2>&1
}

# The beginning of each line is its time, in the time zone of this host.
young() {
    if [ -n "$seconds" ]; then
        awk -F'"' -v since="$(date -d "-$seconds seconds" +%Y-%m-%dT%H:%M:%S)" '$4 >= since'
    else
        cat
    fi
}

gateway() {
    [ "$lines" != all ] || lines=+1
    size=$(stat -c %s "$name")
    head -c "$size" "$name" | tail -n "$lines" | young
    [ -z "$follow" ] || exec tail -c "+$((size + 1))" -F "$name" 2>/dev/null
}

matching() {
    if [ -n "$pattern" ]; then grep --line-buffered -E -e "$pattern"; else cat; fi
}

# Run a reader in the background, and end it when standard input is closed.
until_closed() {
    "$@" &
    reader=$!
    { cat <&3; kill "$reader"; } >/dev/null 2>&1 &
    watcher=$!
    wait "$reader"
    kill "$watcher" 2>/dev/null
}

if [ "$kind" = container ]; then
    docker inspect "$name" >/dev/null || exit 1
elif [ ! -e "$name" ]; then
    echo "there is no $name: is the gateway deployed?" >&2
    exit 1
fi
exec 3<&0
if [ -n "$follow" ]; then until_closed "$kind"; else ("$kind"); fi | matching
exit 0
