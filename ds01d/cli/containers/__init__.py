"""`container-create` and its sisters."""
