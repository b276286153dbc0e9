"""Sends the packets of a scapy expression to where the kernel routes them: forged ones, mostly."""

import sys

from scapy.all import *  # noqa: F403

send(eval(sys.argv[1]), verbose=False)  # noqa: F405
