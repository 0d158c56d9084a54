"""The books and what stands beside them: state, metadata, limits, and the two logs."""
