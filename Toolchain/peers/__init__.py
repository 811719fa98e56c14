"""Compares AudioToken Edge with other runtimes on the same processor."""
