"""The host: clocks, users, processes, packages."""
