"""ds01d at work, from the first look to the last, on a host made for it: see `demo.py`."""
