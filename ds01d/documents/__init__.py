"""What a pass found and did: printed with --json, shown as tables, sent by the service."""
