"""A close look at a device: what it is, what each of its sensors really tells, and how often."""
