"""A double of the Qdrant server: Qdrant's own core behind the server's REST interface.

The core is the package qdrant-edge-py: the same HNSW index, sparse vectors, payload indexes,
filters, fusion and BM25 as in the server. Only the interface over HTTP is ours, and only the calls
that the search API makes. Two differences are the package's: building the index stops all other
requests of the process, and a condition on a boolean finds nothing.

As a program: `python3 -m tests.doubles.qdrant PORT`. It stores below
`QDRANT__STORAGE__STORAGE_PATH`, or in a directory that it deletes.
"""
