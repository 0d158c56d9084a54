"""The commands. Reads arguments and prints; the work is done below."""
