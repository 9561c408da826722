"""The `llmhost` command: day-2 work around `pyinfra INVENTORY deploy.py`."""
