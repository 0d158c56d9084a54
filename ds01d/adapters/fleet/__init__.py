"""Other hosts: over OpenSSH what they published and commands that run there; and the store of all.

The first is imported only where `[fleet] hosts` is set and a command asks for them, the store only
where `[fleet] etcd` is. Nothing that comes from there changes a booking here: it is shown, decides
where to ask next, or whether a new booking is allowed.
"""
