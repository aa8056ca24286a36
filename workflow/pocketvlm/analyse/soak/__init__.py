"""What the runs of a soak give: a row a run, what a device keeps up, and everything over one time axis."""
