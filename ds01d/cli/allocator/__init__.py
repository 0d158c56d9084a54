"""`ds01-allocator`, the drop-in for the allocator that scripts call."""
