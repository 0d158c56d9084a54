"""What can only be reported: one finding a module, none knows another."""
