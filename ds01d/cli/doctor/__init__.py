"""`ds01ctl doctor` and its checks."""
