# Lock this host for one run of a deploy, until standard input is closed.
# $1: directory of the history, $2: the run, a line of JSON.
# Prints "locked", or "taken" and then the run that holds the lock. Each input line replaces the one
# before; the last becomes the run's entry in the history. The kernel releases the lock when this
# process ends, however it ends.
umask 022
state=/run/llmhost
mkdir -p "$state" && exec 9>>"$state/deploy.lock" || exit 1
# A shell of the same run over a lost connection: replace it.
case $(head -n 1 "$state/deploy.owner" 2>/dev/null) in
"${2%%,*}",*)
    pid=$(sed -n 2p "$state/deploy.owner")
    ls -l "/proc/$pid/fd" 2>/dev/null | grep -q "$state/deploy.lock\$" && kill "$pid"
    ;;
esac
# The host may notice a little later that the connection of a run has ended.
if ! flock -w 5 9; then
    echo taken
    cat "$state/deploy.owner"
    exit 0
fi
printf '%s\n%s\n' "$2" "$$" >"$state/deploy.owner"
echo locked
entry=
record() {
    [ -n "$entry" ] || return 0
    mkdir -p "$1"
    # Remove the oldest entries. A reader sees either the old or the new file.
    { tail -n 499 "$1/history.jsonl" 2>/dev/null; printf '%s\n' "$entry"; } >"$1/.history.new"
    mv "$1/.history.new" "$1/history.jsonl"
}
trap 'record "$1"; exit 0' TERM HUP INT
while IFS= read -r line; do entry=$line; done
record "$1"
