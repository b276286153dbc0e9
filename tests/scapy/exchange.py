"""Builds GRE packets with scapy, sends them into a gateway, and dissects what the gateway sends.

Reads a JSON file and prints JSON; what is right and what is wrong its caller decides. Both sides of
the gateway are in namespaces of their own:

    host (eth0) ------ gateway ====== peer (wan)

"inward" packets are encapsulated here, cut into fragments where a row has "pieces", and sent by the
peer; said is whether the host has got what is in them. "outward" ones are sent by the host as they
are; said is what the peer has got, and every sequence number that was sent to a remote.
"""

import ctypes
import json
import os
import socket
import sys
import time

from scapy.config import conf
from scapy.layers.inet import (
    IP,
    UDP,
    IPOption_NOP,
    IPOption_Router_Alert,
    IPOption_RR,
    fragment,
)
from scapy.layers.inet6 import (
    HBHOptUnknown,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    RouterAlert,
    fragment6,
)
from scapy.layers.l2 import GRE, Ether
from scapy.packet import Raw
from scapy.utils import checksum

PATIENCE = 10
OUTGOING = 4
MARK = b"xgre by scapy:"
CLONE_NEWNET = 0x40000000
# Bytes: so small that a fence is four fragments.
FENCE_MTU = 36
# Of identifications, between those of the rows and those of their fences.
FENCES = 0x8000

LIMIT = IPv6ExtHdrDestOpt(options=[HBHOptUnknown(otype=4, optdata=b"\x04")])
OPTIONS = {
    "no operation": [IPOption_NOP()] * 4,
    "router alert": [IPOption_Router_Alert()],
    "record route": [IPOption_RR(routers=["0.0.0.0"] * 3), IPOption_NOP()],
    "as many as fit": [IPOption_NOP()] * 40,
}
EXTENSIONS = {
    "padding": IPv6ExtHdrDestOpt(),
    "encapsulation limit": LIMIT,
    "long": IPv6ExtHdrDestOpt(options=[HBHOptUnknown(otype=0x1E, optdata=bytes(60))]),
    "hop by hop": IPv6ExtHdrHopByHop(options=[RouterAlert()]),
    "hop by hop, encapsulation limit": IPv6ExtHdrHopByHop(options=[RouterAlert()]) / LIMIT,
}


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
        self.frames = []

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
            if kind == OUTGOING:
                continue
            self.frames.append(frame)
            mark = mark_of(frame)
            if mark is not None:
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


def outer(row, packet, number):
    """The packet around another, or the fragments of it."""
    fields = dict(row["outer"])
    options = fields.pop("options", None)
    pieces = row.get("pieces")
    inside = GRE(**row["gre"]) / packet
    if ":" not in fields["dst"]:
        around = IP(id=number + 1, options=OPTIONS[options] if options else [], **fields) / inside
        return cut(pieces, lambda mtu: fragment(around, mtu - 4 * whole(around).ihl), around)
    if pieces:
        inside = IPv6ExtHdrFragment(id=number) / inside
    if options:
        inside = EXTENSIONS[options] / inside
    around = IPv6(**fields) / inside
    return cut(pieces, lambda mtu: fragment6(around, mtu), around)


def cut(pieces, fragments, around):
    if not pieces:
        return [around]
    mtu, order = pieces["mtu"], pieces["order"]
    first, *others = fragments(mtu)
    if not others:
        raise SystemExit(f"one fragment of {around!r}")
    if order == "in order":
        return [first, *others]
    if order == "backwards":
        return [*others[::-1], first]
    if order == "first twice":
        return [first, first, *others]
    if order == "one missing":
        return [first, *others[1:]]
    if order == "overlapping":
        # Nothing is missing, but the end of the first is in the second too.
        return [fragments(mtu + 80)[0], *others]
    raise SystemExit(f"{order} is no order of fragments")


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
        for piece in outer(row, packet, number):
            peer.send(piece)
        sent.append(packet)
        # What the gateway does with a packet it has done before the next that goes the same way:
        # behind what its daemon may get, the fence is four fragments, for the daemon too.
        end = mark("fence", number)
        slow = "pieces" in row or "options" in row["outer"]
        pieces = {"mtu": FENCE_MTU, "order": "in order"} if slow else None
        packet = inner(fence["inner"], end)
        for piece in outer({**fence, "pieces": pieces}, packet, FENCES + number):
            peer.send(piece)
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


def numbers(peer):
    """Of all that the gateway sent, its own packets too: sequence numbers by remote, in order."""
    result = {}
    for frame in peer.frames:
        seen = Ether(frame)
        if GRE in seen and seen[GRE].seqnum_present:
            result.setdefault(seen.payload.dst, []).append(seen[GRE].sequence_number)
    return result


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
            "label": 0 if around.version == 4 else around.fl,
            "between": between(around),
        },
        "gre": fields,
        "sums_to_zero": not gre.chksum_present or checksum(bytes(gre.original)) == 0,
        "right": bytes(again) == frame,
        "same": bytes(gre.payload) == forwarded(packet),
    }
    return result


def between(around):
    """What is between the outer header and that of GRE."""
    result = []
    layer = around.payload
    while layer and not isinstance(layer, GRE):
        result.append(layer.name)
        layer = layer.payload
    return result


def main():
    conf.verb = 0
    with open(sys.argv[1], encoding="utf-8") as file:
        task = json.load(file)
    # Packets of one CPU reach the gateway's daemon in order.
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[os.getpid() % len(cpus)]})
    peer, host = Port(task["peer"]), Port(task["host"])
    result = {
        "inward": inward(peer, host, task["inward"], task["fence"]),
        "outward": outward(peer, host, task["outward"]),
    }
    result["numbers"] = numbers(peer)
    json.dump(result, sys.stdout)


main()
