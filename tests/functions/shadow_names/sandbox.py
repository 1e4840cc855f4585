NAME = "the user's sandbox"
