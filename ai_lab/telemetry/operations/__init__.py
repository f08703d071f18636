"""What the lab did: every operation counted and timed, for any window, and functions under a decorator."""
