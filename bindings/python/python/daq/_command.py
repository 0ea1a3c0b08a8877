"""The `daq` command, as the package installs it."""

import signal
import sys

from ._daq import command


def main() -> int:
    # The command runs outside of Python, which would look at Ctrl-C only after it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return command(["daq", *sys.argv[1:]])
