"""What a device can do at most: memory bandwidth and operations a second, measured or quoted."""
