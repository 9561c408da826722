#!/bin/sh
# Which programs listen on TCP ports, for llmhost/facts/listeners.py. A bare host has no ss.
# usage: listeners.sh PORT...
# Prints `PORT ADDRESS PROGRAM` for each, with the kernel's form of the address.
for port; do
  awk -v port="$(printf ':%04X' "$port")" \
    '$4 == "0A" && substr($2, length($2) - 4) == port { print substr($2, 1, length($2) - 5), $10 }' \
    /proc/net/tcp /proc/net/tcp6 2>/dev/null |
    while read -r address inode; do
      file=$(find /proc/[0-9]*/fd -lname "socket:\[$inode\]" -print -quit 2>/dev/null)
      process=${file#/proc/} process=${process%%/*}
      echo "$port $address $(cat "/proc/${process:-none}/comm" 2>/dev/null)"
    done
done
true
