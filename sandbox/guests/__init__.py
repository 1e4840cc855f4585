"""Code that runs inside sandboxes: it imports nothing of ours from outside its folder.

Nothing on the host imports it, but for the fork itself (sandbox/siblings.py).
"""
