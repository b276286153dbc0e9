"""One call as it is on the wire, by whatever user this runs as: call.py SOCKET CALL"""

import socket
import sys

with socket.socket(socket.AF_UNIX) as client:
    client.connect(sys.argv[1])
    client.sendall(sys.argv[2].encode() + b"\0")
    answer = b""
    while not answer.endswith(b"\0"):
        received = client.recv(65536)
        if not received:
            sys.exit("hung up")
        answer += received
print(answer[:-1].decode())
