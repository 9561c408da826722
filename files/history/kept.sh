#!/bin/sh
# Kept deploys, images and uploaded files, for llmhost/facts/kept_deploys.py.
# usage: kept.sh DIRECTORY STATUS_FILE RECEIPT UPLOADS LABEL IMAGE_FORMAT
for archive in "$1"/*.tar; do
  [ -e "$archive" ] || continue
  name=${archive##*/}
  port=$(tar -xOf "$archive" "$2" 2>/dev/null |
    sed -n 's/.*listen 127[.]0[.]0[.]1:\([0-9]*\);.*/\1/p')
  receipt=$(tar -xOf "$archive" receipt.json 2>/dev/null | base64 -w0)
  echo "deploy|${name%.tar}|$port|$receipt|$(tar -tf "$archive" 2>/dev/null | tr '\n' ' ')"
done
echo "present|$(base64 -w0 "$3" 2>/dev/null)"
echo "runs|$(tail -n 50 "${3%/*}/history.jsonl" 2>/dev/null | base64 -w0)"
# Images that llmhost built, and engines that it gave a name.
{
  docker image ls --quiet --no-trunc --filter "label=$5"
  docker image ls --quiet --no-trunc 'llmhost/engine-*'
} 2>/dev/null | sort -u |
  xargs -r docker image inspect --format "$6" 2>/dev/null
docker ps --all --quiet 2>/dev/null | xargs -r docker inspect --format 'used|{{.Image}}'
ls "$4" 2>/dev/null | sed 's/^/upload|/'
true
