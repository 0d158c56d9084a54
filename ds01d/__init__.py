"""ds01d keeps a GPU allocator's books true against Docker and NVML."""

__version__ = "0.1.0"
