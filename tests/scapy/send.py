"""Sends the packets of a scapy expression to where the kernel routes them, or its frames out of a device
that is named: forged ones, mostly."""

import sys

from scapy.all import *  # noqa: F403

packets = eval(sys.argv[1])
if len(sys.argv) > 2:
    sendp(packets, iface=sys.argv[2], verbose=False)  # noqa: F405
else:
    send(packets, verbose=False)  # noqa: F405
