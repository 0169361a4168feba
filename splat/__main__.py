"""`python -m splat`: the command."""

import sys

from splat.cli import main

sys.exit(main())
