NAME = "the user's orjson"
