"""Adapters that hosts train: the examples, what is sent to a host, and what comes back."""
