"""`ds01-dashboard`."""
