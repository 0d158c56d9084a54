"""The drop-in for `gpu_allocator_v2.py`, whose lines, exit codes and reasons stay."""
