"""Docker: its API, its events, what they mean, and the commands that change something."""
