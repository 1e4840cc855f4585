"""The Python guest: what a zygote and its workers run. `start.py` loads this folder under the name `_guest`."""
