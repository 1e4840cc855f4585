"""Other ways to serve the handler of tests/functions/hello, each installed, started and asked as its makers describe.

Versions are pinned; PyPI and npm are all that is needed, and everything lands below .cache/rivals. One file for each kind:
how it is installed, started and what a cold start of it is. `running.py` says what they have in common.
"""

from benchmarks.rivals.lambda_rie import LAMBDA_RIE
from benchmarks.rivals.ministack import MINISTACK
from benchmarks.rivals.running import Rival, Running, started
from benchmarks.rivals.serverless_offline import SERVERLESS_OFFLINE
from benchmarks.rivals.wasm import WASM
from benchmarks.rivals.web_servers import FUNCTIONS_FRAMEWORK, GRANIAN, UVICORN
from benchmarks.rivals.workerd import WORKERD

RIVALS = (
    LAMBDA_RIE,
    MINISTACK,
    SERVERLESS_OFFLINE,
    WASM,
    WORKERD,
    FUNCTIONS_FRAMEWORK,
    GRANIAN,
    UVICORN,
)

__all__ = ["RIVALS", "Rival", "Running", "started"]
