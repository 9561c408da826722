"""`python3 -m tests.doubles.qdrant PORT`."""

import os
import signal
import sys
import tempfile
from pathlib import Path

from tests.doubles.qdrant import serve

# The first process of a container is not ended by a signal that it does not handle.
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
with tempfile.TemporaryDirectory(prefix="qdrant-") as directory:
    storage = Path(os.environ.get("QDRANT__STORAGE__STORAGE_PATH", directory))
    storage.mkdir(parents=True, exist_ok=True)
    with serve(int(sys.argv[1]), storage, "0.0.0.0") as server:
        server.serve_forever()
