#!/bin/sh
# Lines of apt's sources that are no comments, for llmhost/system/apt_sources.py: `source PATH:LINE:TEXT`.
LC_ALL=C grep -aHnv '^[[:space:]]*#' /etc/apt/sources.list /etc/apt/sources.list.d/*.list \
  /etc/apt/sources.list.d/*.sources 2>/dev/null | tr -cd '\n\t\40-\176' | sed 's/^/source /'
