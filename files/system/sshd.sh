#!/bin/sh
# sshd's settings with and without llmhost's file, and that file: llmhost/facts/sshd.py reads it.
# Prints `failed REASON` if sshd cannot read its configuration.
# usage: sshd.sh MAIN DROP_IN
main=$1 own=$2
PATH=$PATH:/usr/sbin:/sbin
{ command -v sshd >/dev/null && [ -e "$main" ]; } || exit 0
# sshd -T refuses to run without it, and with ssh.socket nothing may have made it yet.
[ -d /run/sshd ] || mkdir -m 0755 /run/sshd
directory=${own%/*} others=
for file in "$directory"/*.conf; do
  [ "$file" = "$own" ] || [ ! -e "$file" ] || others="$others $file"
done
effective=$(sshd -T 2>/dev/null) || {
  echo "failed $(sshd -T 2>&1 >/dev/null | tail -n 1)"
  exit 0
}
printf '%s\n' "$effective" | sed 's/^/effective /'
sed -E -e "s#^[[:space:]]*Include[[:space:]]+\"?$directory/\*\.conf\"?.*#${others:+Include$others}#I" \
  -e "\#^[[:space:]]*Include[[:space:]]+$own#Id" "$main" |
  sshd -T -f /dev/stdin 2>/dev/null | sed 's/^/others /'
# The change time also shows a file that was replaced by an older one.
# shellcheck disable=SC2086 # paths without blanks
stat -c 'changed %.Z' "$main" $others
echo "own $(base64 -w0 "$own" 2>/dev/null)"
true
