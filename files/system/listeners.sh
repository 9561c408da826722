#!/bin/sh
# Which programs listen on TCP ports, for llmhost/facts/listeners.py. A bare host has no ss.
# usage: listeners.sh PORT...
# Prints `PORT ADDRESS PROGRAM` for each listener, with the kernel's form of the address.
{
  cat /proc/net/tcp /proc/net/tcp6 2>/dev/null
  find /proc/[0-9]*/fd -lname 'socket:*' -printf '%l %p\n' 2>/dev/null
} | awk -v ports="$*" '
  BEGIN {
    count = split(ports, port, " ")
    for (each = 1; each <= count; each++) wanted[sprintf(":%04X", port[each])] = port[each]
  }
  $4 == "0A" {
    place = length($2) - 4
    if (substr($2, place) in wanted)
      listener["socket:[" $10 "]"] = wanted[substr($2, place)] " " substr($2, 1, place - 1)
  }
  # Each process that has the socket, until one still runs and gives its name.
  $1 in listener && program[$1] == "" {
    split($2, part, "/")
    file = "/proc/" part[3] "/comm"
    if ((getline name <file) > 0) program[$1] = name
    close(file)
  }
  END { for (socket in listener) print listener[socket], program[socket] }'
