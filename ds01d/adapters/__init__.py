"""The outside world: each format and each third-party library has one module here."""
