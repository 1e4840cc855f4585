"""Logs and metrics: what a host reports about itself and its functions."""
