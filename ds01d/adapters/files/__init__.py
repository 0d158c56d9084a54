"""Files and locks that others may write, replace or hold at the same time."""
