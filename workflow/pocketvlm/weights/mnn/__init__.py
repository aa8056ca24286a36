"""Weights in MNN's format, converted from the GGUF files of a LLaVA."""
