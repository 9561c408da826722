#!/bin/sh
# What decides about Docker's hardening: llmhost/facts/docker.py reads it.
systemctl is-active --quiet docker.service && echo running
# Docker loads the module itself. In a container, only the host can.
if [ -e /proc/sys/net/bridge/bridge-nf-call-iptables ] || modprobe -nq br_netfilter 2>/dev/null; then
  grep -qi microsoft /proc/sys/kernel/osrelease || echo bridge-filter
fi
true
