"""The search API: dense and keyword retrieval over one collection, fused by rank."""
