"""What ds01d-notify does: when a notice is tried, again, or not at all. Never touches the books."""
