"""The booking service: a Varlink socket that knows who calls, and the rules for each call."""
