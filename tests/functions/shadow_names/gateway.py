"""A user's own module, whatever a platform calls its packages."""

import cffi
import orjson
import queue
import sandbox


def handler(event, context):
    return [module.NAME for module in (cffi, orjson, queue, sandbox)]
