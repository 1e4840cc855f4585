"""Hostile clients: functions that raise AssertionError when a door did what it must not do; `every.py` has them together."""
