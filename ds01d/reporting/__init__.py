"""What people see: logs, metrics, status. Decides nothing."""
