"""Values: facts, the snapshot, verdicts, drifts, checkpoint. Imports config and errors at most."""
