#!/bin/sh
# Interfaces, addresses, default routes, and what manages them, for llmhost/facts/network.py.
echo "kernel $(cat /proc/sys/kernel/osrelease)"
for link in /sys/class/net/*; do echo "link ${link##*/} $(cat "$link/address" 2>/dev/null)"; done
command -v ip >/dev/null || echo without-ip
ip -o address show scope global 2>/dev/null | sed 's/^/address /'
for version in 4 6; do ip -$version route show default 2>/dev/null; done | sed 's/^/route /'
# Only /lib/netplan and /etc: a file in /run would belong to a trial.
if command -v netplan >/dev/null; then
  for file in /lib/netplan/*.yaml /etc/netplan/*.yaml; do
    [ -e "$file" ] && echo "netplan $file $(base64 -w0 "$file")"
  done
fi
networkctl --no-legend --no-pager list 2>/dev/null |
  awk '$NF ~ /^configur(ed|ing)$/ { print "manager", $2, "networkd" }'
sed -nE 's/^[[:space:]]*iface[[:space:]]+([^[:space:]]+).*/manager \1 ifupdown/p' \
  /etc/network/interfaces /etc/network/interfaces.d/* 2>/dev/null
nmcli -t -f DEVICE,STATE device 2>/dev/null |
  awk -F: '$2 != "unmanaged" { print "manager", $1, "NetworkManager" }'
true
