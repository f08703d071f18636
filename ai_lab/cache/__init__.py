"""Owns stored answers: exact ones and those to questions that say the same. Does not decide what is asked."""
