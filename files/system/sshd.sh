#!/bin/sh
# sshd's settings with and without llmhost's file, and that file: llmhost/facts/sshd.py reads it.
# Prints `failed REASON` if an sshd that accepts connections cannot read its configuration.
# usage: sshd.sh MAIN DROP_IN
main=$1 own=$2
PATH=$PATH:/usr/sbin:/sbin
{ command -v sshd >/dev/null && [ -e "$main" ]; } || exit 0
# sshd -T refuses to run without it, and with ssh.socket nothing may have made it yet.
[ -d /run/sshd ] || mkdir -m 0755 /run/sshd

# A file and what it includes, by any pattern (sshd_config(5)).
included() {
  echo "$1"
  sed -nE 's/^[[:space:]]*Include[[:space:]=]+//Ip' "$1" | tr -s '" \t' '\n' |
    while read -r pattern; do
      case $pattern in /*) ;; *) pattern=${main%/*}/$pattern ;; esac
      for file in $pattern; do
        if [ -f "$file" ]; then included "$file"; fi
      done
    done
}

# Where mounts are forbidden, as in some containers: Debian's form of Include.
without_own() {
  # shellcheck disable=SC2016 # expanded by the inner shell
  unshare --mount sh -c 'mount --bind /dev/null "$1" && exec sshd -T' - "$own" 2>/dev/null || {
    directory=${own%/*}
    others=$(for file in "$directory"/*.conf; do
      [ "$file" = "$own" ] || [ ! -e "$file" ] || printf ' %s' "$file"
    done)
    sed -E -e "s#^[[:space:]]*Include[[:space:]]+\"?$directory/\*\.conf\"?.*#${others:+Include$others}#I" \
      -e "\#^[[:space:]]*Include[[:space:]]+$own#Id" "$main" | sshd -T -f /dev/stdin 2>/dev/null
  }
}

effective=$(sshd -T 2>/dev/null) || {
  systemctl --quiet is-active ssh.service ssh.socket &&
    echo "failed $(sshd -T 2>&1 >/dev/null | tail -n 1)"
  exit 0
}
printf '%s\n' "$effective" | sed 's/^/effective /'
if [ -e "$own" ]; then without_own; else printf '%s\n' "$effective"; fi | sed 's/^/others /'
included "$main" | grep -vxF "$own" | sort -u | while read -r file; do
  # The change time also shows a file that was replaced by an older one.
  stat -c 'changed %.Z' "$file"
  # What `sshd -T` does not say, because it depends on the user.
  sed -E 's/[[:space:]="]+/ /g; s/^ //' "$file" | awk -v file="$file" '
    BEGIN { split("passwordauthentication kbdinteractiveauthentication" \
      " challengeresponseauthentication permitrootlogin permitemptypasswords", words, " ")
      for (each in words) known[words[each]] }
    tolower($1) == "match" { block = $0 }
    tolower($1) == "authenticationmethods" { print "methods", $0 }
    block && tolower($1) in known && tolower($2) == "yes" { print "exception", file ": " block ": " $0 }'
done
echo "own $(base64 -w0 "$own" 2>/dev/null)"
true
