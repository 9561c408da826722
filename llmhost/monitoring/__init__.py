"""Monitoring: configurations of Prometheus and Alertmanager, and what a host offers. Pure."""
