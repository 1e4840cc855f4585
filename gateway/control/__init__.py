"""What exists: functions, tags, packages, keys. One process, no wire formats."""
