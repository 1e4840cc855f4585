"""Code that runs inside sandboxes. Nothing on the host imports it, and it imports nothing of ours from outside its folder."""
