"""Values: facts, the snapshot, verdicts, drifts, memory. Imports config and errors at most."""
