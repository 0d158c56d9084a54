"""Output for people and programs: blocks, tables, text."""
