"""Where notices go: the spool, and the targets of ds01d-notify, each in its module."""
