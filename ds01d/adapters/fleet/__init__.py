"""Other hosts, over OpenSSH: what they published, and commands that run there.

Imported only where `[fleet]` names hosts and a command asks for them. Nothing that comes from there
changes anything here: it is shown, or decides where to ask next.
"""
