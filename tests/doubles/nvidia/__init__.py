"""Doubles of NVIDIA hardware and software, for machines that have neither.

hardware.py      what a PCI bus with GPUs looks like, and the list of GPUs that the others read
nvml.c           libnvidia-ml.so.1, as far as nvidia-ml-py asks it
nvidia-smi       the command, as far as llmhost and its tests ask it
container-smi.c  the same in a container, as a CDI spec mounts it
nvidia-ctk       the toolkit's command: writes a CDI spec
packages.py      all of these, and empty ones, as packages under the real names
"""
