"""A search for settings: what runs next, which candidates go on, what is chosen, and what it all comes to."""
