#!/bin/sh
# Files with which an nginx that llmhost has not set up serves sites, one a line.
# usage: other_sites.sh DIRECTORY, the directory of llmhost's own configuration
[ -e "$1" ] && exit 0
command -v nginx >/dev/null || exit 0

# A configuration that nginx refuses now may still be the one that it runs.
files=$(nginx -T 2>/dev/null | sed -n 's/^# configuration file \(.*\):$/\1/p')
[ -n "$files" ] || files=$(find /etc/nginx/nginx.conf /etc/nginx/conf.d/ /etc/nginx/sites-enabled/ ! -type d 2>/dev/null)

as_packaged() { # FILE: a configuration file that nobody has changed
  file=$(readlink -f "$1")
  package=$(dpkg-query -S "$file" 2>/dev/null | cut -d: -f1)
  [ -n "$package" ] || return 1
  shipped=$(dpkg-query -W -f '${Conffiles}\n' "$package" | grep -F " $file " | cut -d' ' -f3)
  [ "$(md5sum <"$file" | cut -d' ' -f1)" = "$shipped" ]
}

# The packaged site serves this directory.
other_pages() { find /var/www/html/ -type f ! -name 'index.nginx-debian.html' 2>/dev/null | grep -q .; }

echo "$files" | while read -r file; do
  grep -qE '^[^#]*\bserver[[:space:]]*(\{|$)' "$file" 2>/dev/null || continue
  as_packaged "$file" && ! other_pages && continue
  echo "$file"
done
