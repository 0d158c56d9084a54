"""A fault campaign over several hosts and one etcd; its checker shares no code with ds01d."""
