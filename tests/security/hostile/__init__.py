"""Hostile functions and clients with the outcome each must have, against any server: see `test_functions.py`, `test_clients.py`.

One file per class of threat; `case.py` says what a case is, `arena.py` deploys and calls, `attack.py` travels inside each package.
"""
