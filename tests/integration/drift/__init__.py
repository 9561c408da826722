"""Ways in which a server drifts, each found, named and corrected: cases.py lists them."""
