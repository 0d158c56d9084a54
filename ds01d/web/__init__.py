"""The web page: HTTP, a page, and the documents that it shows. Reads and shows; changes nothing.

Runs in a process of its own (`ds01ctl web`), never in the daemon, and knows no adapter: what it
shows is read by functions that it is given.
"""
