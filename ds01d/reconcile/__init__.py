"""A pass: observe, decide, repair. Reaches the host only through `ports`; imports no adapter."""
