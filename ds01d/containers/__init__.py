"""A person's containers: created, started, stopped and removed together with their bookings."""
