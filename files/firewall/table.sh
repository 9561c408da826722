#!/bin/sh
# How a loaded table of nftables differs from the file that declares it: llmhost/system/nftables.py
# reads it. The kernel itself turns the file into rules, in another network namespace.
# usage: table.sh FILE TABLE
# Prints `table loaded` if there is such a table, then `table < RULE` for each rule of the file that is
# not loaded, and `table > RULE` for each loaded one that is not in the file.
list() { nft --stateless list table inet "$1" 2>/dev/null; }

list "$2" >/dev/null && echo table loaded
[ -f "$1" ] || exit 0
# shellcheck disable=SC2016 # expanded by the inner shell
unshare --net sh -c 'nft -f "$1" && nft --stateless list table inet "$2"' - "$1" "$2" 2>/dev/null | {
  exec 3<&0
  list "$2" | diff /dev/fd/3 - |
    sed -n 's/^\([<>]\)[[:space:]]*\([^[:space:]]\)/table \1 \2/p'
}
true
