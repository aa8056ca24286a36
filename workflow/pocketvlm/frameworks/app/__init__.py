"""Frameworks that are driven through their Android app, whichever it is: what differs is data (`config.apps`)."""
