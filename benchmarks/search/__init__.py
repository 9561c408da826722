"""Quality and speed of the search API, on Qdrant's core and a real embedding model."""
