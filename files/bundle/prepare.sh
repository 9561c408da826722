#!/bin/sh
# Copy the builder's package sources to a separate directory.
# usage: prepare.sh DIRECTORY
set -e
mkdir -p "$1"
cd "$1"
rm -rf sources.list.d keys
mkdir -p sources.list.d keys lists/partial state
: >status
cp /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources sources.list.d/ 2>/dev/null || true
