"""Real parts to stand on: a simulated NVML, a private Docker engine, a fake engine, a faulty proxy.

Tests, the demo and the benchmarks use them. ds01d itself never imports them, and they are not
shipped. Nothing in here touches the host's own Docker or GPUs.
"""
