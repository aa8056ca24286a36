"""Frameworks that are driven through their Android app, whichever: what differs is data (`config.apps`)."""
