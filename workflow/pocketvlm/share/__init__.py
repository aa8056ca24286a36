"""An experiment as one archive, to be sent: packing it, and rendering one that somebody else measured."""
