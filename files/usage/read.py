"""Sum up the gateway's access log, rotated files included, as one JSON object.

Sent to a host by `llmhost usage` and run there as root by Python 3.10 or newer. Arguments: the log,
and how many seconds back, 0 for everything. Days are those of the host's time zone.
"""

import gzip
import json
import re
import sys
import time
import zlib
from datetime import datetime
from pathlib import Path

COUNTS = ("requests", "errors", "refused", "aborted", "seconds", "bytes_in", "bytes_out")
TOKENS = ("counted", "tokens_in", "tokens_out")


def files(log, since):
    """The log and its rotated files; those that ended too early are left out.

    logrotate removes a file only once it is compressed: if both exist, a power cut interrupted it,
    and the next rotation moves the incomplete one out of the way, to a name with more suffixes.
    """
    number = re.compile(re.escape(log.name) + r"(\.\d+(\.gz)?)?")
    found = {path.name for path in log.parent.glob(log.name + "*") if number.fullmatch(path.name)}
    names = sorted(name for name in found if name.removesuffix(".gz") not in found - {name})
    return [path for path in map(log.parent.joinpath, names) if path.stat().st_mtime >= since]


def lines(path, damaged):
    """The lines of a file, as far as it can be read; the reason it ends early is in `damaged`."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield from file
    except (EOFError, OSError, zlib.error) as error:
        damaged[path.name] = str(error)


def read(log, since):
    """Sums by day, client, route, model and variant, the time of the oldest request that was
    counted, of the last one of each client, and the files that cannot be read to their end, each
    with the reason."""
    sums, oldest, last, damaged = {}, None, {}, {}
    for path in files(log, since):
        for line in lines(path, damaged):
            try:
                request = json.loads(line)
                ended = request["time"]
                late = not since or datetime.fromisoformat(ended).timestamp() >= since
            except (ValueError, KeyError, TypeError):
                continue  # nginx or the disk was interrupted while it was written
            if late:
                oldest = min(oldest or ended, ended)
                last[request["client"]] = max(last.get(request["client"], ended), ended)
                add(sums, request)
    names = ("day", "client", "route", "model", "variant", *COUNTS, *TOKENS)
    rows = [dict(zip(names, (*key, *row), strict=True)) for key, row in sorted(sums.items())]
    last.pop("", None)  # requests without a valid key
    return {"oldest": oldest, "last": last, "rows": rows, "damaged": damaged}


def add(sums, request):
    key = (request["time"][:10], request["client"], request["route"])
    key += (request.get("model", ""), request.get("variant", ""))
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
