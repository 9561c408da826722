"""Engine groups with the real vLLM and Ray: hosts are network namespaces on one network."""
