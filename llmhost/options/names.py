"""Patterns of names, for commands that check a name without building the options."""

CLIENT = r"^[a-z0-9][a-z0-9_.-]{0,62}$"
"""A client of the gateway, as it appears in the access log."""
