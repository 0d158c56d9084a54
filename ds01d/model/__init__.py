"""Values: facts, the snapshot, verdicts, drifts, memory. May import config and errors, nothing else."""
