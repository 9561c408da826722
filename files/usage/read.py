"""Sum up the gateway's access log, rotated files included, as one JSON object.

Sent to a host by `llmhost usage` and run there as root by Python 3.10 or newer. Arguments: the log,
and how many seconds back, 0 for everything. Days are those of the host's time zone.
"""

import gzip
import json
import sys
import time
from datetime import datetime
from pathlib import Path

COUNTS = ("requests", "errors", "refused", "aborted", "seconds", "bytes_in", "bytes_out")
TOKENS = ("counted", "tokens_in", "tokens_out")


def files(log, since):
    """The log and its rotated files; those that ended too early are left out."""
    found = [log, *log.parent.glob(log.name + ".*")]
    return [path for path in found if path.is_file() and path.stat().st_mtime >= since]


def lines(path):
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        yield from file


def read(log, since):
    """Sums by day, client, route and model, and the time of the oldest request that was counted."""
    sums, oldest = {}, None
    for path in files(log, since):
        for line in lines(path):
            try:
                request = json.loads(line)
                ended = request["time"]
                late = not since or datetime.fromisoformat(ended).timestamp() >= since
            except (ValueError, KeyError, TypeError):
                continue  # nginx or the disk was interrupted while it was written
            if late:
                oldest = min(oldest or ended, ended)
                add(sums, request)
    names = ("day", "client", "route", "model", *COUNTS, *TOKENS)
    rows = [dict(zip(names, (*key, *row), strict=True)) for key, row in sorted(sums.items())]
    return {"oldest": oldest, "rows": rows}


def add(sums, request):
    key = (request["time"][:10], request["client"], request["route"], request.get("model", ""))
    row = sums.setdefault(key, [0] * len(COUNTS + TOKENS))
    status, refusal = request["status"], request["refusal"]
    # A log of llmhost 0.1.0 does not say whether the answer was complete.
    cut_short = not request.get("complete", "OK")
    aborted = status == 499 or (cut_short and status < 400)
    error = not aborted and (status >= 500 or (status >= 400 and not refusal))
    refused = bool(refusal) and not error and not aborted
    values = (1, error, refused, aborted, request["seconds"])
    sizes = (request["bytes_in"], request["bytes_out"])
    # Empty without gateway_count_tokens, and if the engine did not report them.
    counted = bool(request.get("tokens_in"))
    tokens = [int(request.get(name) or 0) for name in TOKENS[1:]]
    for index, value in enumerate((*values, *sizes, counted, *tokens)):
        row[index] += value


if __name__ == "__main__":
    seconds = float(sys.argv[2])
    print(json.dumps(read(Path(sys.argv[1]), time.time() - seconds if seconds else 0)))
