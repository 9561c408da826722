#!/bin/sh
# Members of an engine group that do not answer on its interface, for llmhost/facts/network.py.
# Arguments: the interface, then each member's name and IPv4 address.
# Prints for each of these its name, and `silent`, `unrouted`, or `via` with another interface.
PATH=$PATH:/usr/sbin:/sbin
command -v ip >/dev/null || exit 0
interface=$1
shift
check() {
  route=$(ip -4 -o route get "$2" 2>/dev/null) || { echo "$1 unrouted"; return; }
  out=$(echo "$route" | sed -nE 's/.* dev ([^ ]+).*/\1/p')
  [ "$out" = "$interface" ] || { echo "$1 via $out"; return; }
  hop=$(echo "$route" | sed -nE 's/.* via ([^ ]+).*/\1/p')
  for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do
    # A datagram to a port that nobody needs: the kernel looks for the neighbor, whatever its
    # firewall admits.
    bash -c "echo >/dev/udp/$2/9" 2>/dev/null
    case $(ip -4 neigh show to "${hop:-$2}" dev "$interface") in
      *FAILED*) break ;;
      *INCOMPLETE*) sleep 0.25 ;;
      *) return ;;
    esac
  done
  echo "$1 silent"
}
while [ $# -gt 1 ]; do
  check "$1" "$2" &
  shift 2
done
wait
