"""The fault campaign: users, writers and faults by a plan, and an oracle of its own."""
