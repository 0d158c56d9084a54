"""What every command shares: options, context, exit codes, signals."""
