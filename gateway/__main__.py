"""`python -m gateway` is `forklight`."""

import sys

from gateway.cli.main import main

sys.exit(main())
