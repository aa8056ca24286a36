"""What is needed from outside Python, had without touching the system: the cache, private apt folders."""
