"""Deciding: pure functions from a snapshot, a memory and a policy. No clock, no file, no log."""
