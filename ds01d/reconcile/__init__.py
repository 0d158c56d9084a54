"""A pass: observe, decide, settle. Knows the world only through `ports`; imports no adapter."""
