"""Asynchronous invocation: what was accepted is run until it ends, and how it ended is told to whom it concerns."""
