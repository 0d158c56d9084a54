"""Deciding: pure functions of a snapshot, a checkpoint and a policy. No clock, file or log."""
