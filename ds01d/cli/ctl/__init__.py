"""`ds01ctl` and its commands."""
