"""NVML: GPUs, MIG devices and processes, sampled by a process of its own."""
