"""Stage scripts of the DVC pipeline: ``python -m pipeline.NAME``."""

import signal
import sys

if sys.argv[0] == "-m":  # a stage begins: nothing is at stake while its imports run, so a signal just ends it
    signal.signal(signal.SIGINT, signal.SIG_DFL)
