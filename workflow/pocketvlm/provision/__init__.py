"""What the workflow needs from outside Python, had without touching the system: the user's cache, private apt folders."""
