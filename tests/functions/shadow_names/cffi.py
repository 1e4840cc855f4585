NAME = "the user's cffi"
