"""Vision-language models from a pinned revision to a phone and back to a report."""
