"""When to make a pass. Decides nothing about containers."""
