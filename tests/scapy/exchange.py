"""Builds GRE packets with scapy, sends them into a gateway, and dissects what the gateway sends.

Reads a JSON file and prints JSON; what is right and what is wrong its caller decides. Both sides of
the gateway are in namespaces of their own:

    host (eth0) ------ gateway ====== peer (wan)

"inward" packets are encapsulated here and sent by the peer; said is whether the host has got what is
in them. "outward" ones are sent by the host as they are; said is what the peer has got.
"""

import ctypes
import json
import os
import socket
import sys
import time

from scapy.config import conf
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import GRE, Ether
from scapy.packet import Raw

PATIENCE = 10
OUTGOING = 4
MARK = b"xgre by scapy:"
CLONE_NEWNET = 0x40000000


class Port:
    """A packet socket on a device of a namespace."""

    def __init__(self, where):
        libc = ctypes.CDLL(None, use_errno=True)
        home = os.open("/proc/self/ns/net", os.O_RDONLY)
        there = os.open(where["namespace"], os.O_RDONLY)
        if libc.setns(there, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "entering " + where["namespace"])
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(3))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.socket.bind((where["device"], 0))
        libc.setns(home, CLONE_NEWNET)
        self.mac = where["mac"]
        self.gateway = where["gateway"]
        self.got = {}

    def send(self, packet):
        self.socket.send(bytes(Ether(src=self.mac, dst=self.gateway) / packet))

    def collect(self, wanted, within):
        """Keeps what arrives, by its mark, until what is wanted has; whether it has."""
        deadline = time.monotonic() + within
        while wanted not in self.got:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self.socket.settimeout(left)
            try:
                frame, (_, _, kind, *_) = self.socket.recvfrom(65536)
            except TimeoutError:
                return False
            mark = mark_of(frame)
            if kind != OUTGOING and mark is not None:
                self.got[mark] = frame
        return True


def mark_of(frame):
    start = frame.find(MARK)
    return None if start < 0 else frame[start : frame.index(b"\n", start)]


def mark(kind, number):
    return MARK + f"{kind} {number}".encode()


def inner(fields, mark):
    """A UDP packet; "size" is that of its payload."""
    fields = dict(fields)
    size = fields.pop("size", 0)
    payload = (mark + b"\n").ljust(size, b"\xa5")
    header = IPv6 if ":" in fields["dst"] else IP
    return header(**fields) / UDP(sport=40000, dport=9) / Raw(payload)


def outer(fields):
    fields = dict(fields)
    options = fields.pop("options", False)
    if ":" not in fields["dst"]:
        return IP(**fields)
    return IPv6(**fields) / IPv6ExtHdrDestOpt() if options else IPv6(**fields)


def forwarded(packet):
    """As the next router sends it: bytes of the packet with one less to live."""
    packet = packet.copy()
    if packet.version == 4:
        packet.ttl -= 1
        del packet.chksum
    else:
        packet.hlim -= 1
    return bytes(packet)


def whole(packet):
    """Built, so that its checksums are numbers."""
    return type(packet)(bytes(packet))


def inward(peer, host, rows, fence):
    sent = []
    for number, row in enumerate(rows):
        packet = whole(inner(row["inner"], mark("in", number)))
        peer.send(outer(row["outer"]) / GRE(**row["gre"]) / packet)
        sent.append(packet)
        # What the gateway does with a packet it has done before the next.
        end = mark("fence", number)
        packet = inner(fence["inner"], end)
        peer.send(outer(fence["outer"]) / GRE(**fence["gre"]) / packet)
        if not host.collect(end, PATIENCE):
            raise SystemExit(f"the fence behind {row} did not arrive")
    results = []
    for number, packet in enumerate(sent):
        frame = host.got.get(mark("in", number))
        same = frame is not None and frame[14:].startswith(forwarded(packet))
        results.append({"arrived": frame is not None, "same": same})
    return results


def outward(peer, host, rows):
    results = []
    for number, row in enumerate(rows):
        packet = whole(inner(row, mark("out", number)))
        host.send(packet)
        if not peer.collect(mark("out", number), PATIENCE):
            results.append(None)
            continue
        results.append(dissected(peer.got[mark("out", number)], packet))
    return results


def dissected(frame, packet):
    seen = Ether(frame)
    around, gre = seen.payload, seen[GRE]
    again = seen.copy()
    layer = again
    while layer:
        # Scapy works out what is deleted: should the gateway's be wrong, they differ.
        for name in ("chksum", "len", "plen"):
            if name in layer.fields and layer.fields[name] is not None:
                delattr(layer, name)
        layer = layer.payload
    fields = {
        name: gre.getfieldval(name)
        for name in (
            "chksum_present routing_present key_present seqnum_present strict_route_source "
            "recursion_control flags version proto offset key sequence_number"
        ).split()
    }
    result = {
        "outer": {
            "src": around.src,
            "dst": around.dst,
            "ttl": around.ttl if around.version == 4 else around.hlim,
            "tos": around.tos if around.version == 4 else around.tc,
            "df": bool(around.version == 4 and around.flags.DF),
        },
        "gre": fields,
        "right": bytes(again) == frame,
        "same": bytes(gre.payload) == forwarded(packet),
    }
    return result


def main():
    conf.verb = 0
    with open(sys.argv[1], encoding="utf-8") as file:
        task = json.load(file)
    peer, host = Port(task["peer"]), Port(task["host"])
    result = {
        "inward": inward(peer, host, task["inward"], task["fence"]),
        "outward": outward(peer, host, task["outward"]),
    }
    json.dump(result, sys.stdout)


main()
