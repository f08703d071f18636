"""Owns what is sent when: arrivals, loops, blocks, prompts and the search for the highest rate."""
