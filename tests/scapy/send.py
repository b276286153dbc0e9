"""Sends the packets of a scapy expression to where the kernel routes them: forged ones, mostly."""

import sys

from scapy.all import *  # noqa: F403

conf.verb = 0  # noqa: F405
for packet in eval(sys.argv[1]):
    send(packet)  # noqa: F405
