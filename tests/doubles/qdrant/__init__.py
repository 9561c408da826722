"""A double of the Qdrant server: Qdrant's own core behind the server's REST interface.

The core is the package qdrant-edge-py: the same HNSW index, sparse vectors, payload indexes,
filters, fusion and BM25 as in the server. Only the interface over HTTP is ours, and only the calls
that the search API makes. Two differences are the package's: building the index stops all other
requests of the process, and a condition on a boolean finds nothing. So the index is built when a
collection is not being changed; until then its status is yellow, as the server's.

As a program: `python3 -m tests.doubles.qdrant PORT`. It stores below
`QDRANT__STORAGE__STORAGE_PATH`, or in a directory that it deletes.
"""

from pathlib import Path

from tests.doubles.qdrant.listener import Listener
from tests.doubles.qdrant.server import Server


def serve(port: int, storage: Path, address: str = "127.0.0.1") -> Listener:
    """Bind to a port, with what is in the directory."""
    return Listener(port, address, Server(storage))
