"""The machine and its GPUs: read at a steady pace, in threads of their own."""
