# Unlock this host, which lock.sh has locked. Prints the owner of the lock, or nothing if there is none.
lock=/run/llmhost/deploy.lock owner=/run/llmhost/deploy.owner
[ -e "$lock" ] || exit 0
flock -n "$lock" true && exit 0
cat "$owner"
# Kill the process only if it has the lock file open: another process may have the id by now.
pid=$(sed -n 2p "$owner")
ls -l "/proc/$pid/fd" 2>/dev/null | grep -q "$lock\$" && kill "$pid"
for _ in 1 2 3 4 5 6 7 8 9 10; do
    flock -n "$lock" true && exit 0
    sleep 0.2
done
echo "the host is still locked; see: fuser -v $lock" >&2
exit 1
