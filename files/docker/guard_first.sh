#!/bin/sh
# Managed by llmhost: edit the inventory (firewall_enabled) instead.
# Forwarded packets meet DOCKER-USER, where ufw's rules for containers are, before any rule of
# Docker. With live-restore, a daemon that is started beside running containers inserts rules of
# their networks ahead of it and leaves it there.

# One transaction: at no moment is the jump missing. It fails if someone changes the rules between
# the two commands.
put_first() { # ip or ip6
    loaded=$("$1tables-save" -t filter) || return
    case $loaded in *":DOCKER-USER "*) ;; *) return 0 ;; esac
    {
        echo '*filter'
        printf '%s\n' "$loaded" | sed -n 's/^-A \(FORWARD -j DOCKER-USER\)$/-D \1/p'
        echo '-I FORWARD -j DOCKER-USER'
        echo COMMIT
    } | "$1tables-restore" --noflush --wait 10
}

for family in ip ip6; do
    [ "$family" = ip ] || [ -e /proc/net/if_inet6 ] || continue # a kernel without IPv6
    put_first "$family" || put_first "$family" || put_first "$family" || exit 1
done
