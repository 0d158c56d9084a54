"""The live view of `ds01-dashboard`: the only part that knows textual."""
