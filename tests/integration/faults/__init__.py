"""Runs that something ends or hinders, and what the next run makes of it."""
