"""Two sides of an experiment, one beside the other: what differs, and how little would have been seen."""
