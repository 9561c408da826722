#!/bin/sh
# From `iptables-save` to what must be as ufw loaded it.
awk '
/^:(INPUT|FORWARD|OUTPUT) / { print $1, $2 }
/^-A (ufw|DOCKER-USER )/ || /^-A (INPUT|FORWARD|OUTPUT) -j ufw/
/^-A INPUT (.*-j ACCEPT|-j (DROP|REJECT))/
/^-A FORWARD -j DOCKER-USER/ { guarded = 1 }
/^-A FORWARD .*-j (ACCEPT|DOCKER)/ && !guarded
' | LC_ALL=C sort -s -k1,2
