"""Owns what is seen besides the requests: the machine, the instrument itself, and where figures come from."""
