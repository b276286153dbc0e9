"""Introspects the control socket and makes calls, with PyPI's varlink.

client.py SOCKET [METHOD PARAMETERS]...    parameters are JSON

Prints one object: what the service says of itself, the description of its interface, the names of the
methods that the description gave this client, and an answer for each call.
"""

import json
import sys

import varlink

INTERFACE = "io.xgre.Control"


def answer(interface, method, parameters):
    try:
        return {"reply": getattr(interface, method)(**json.loads(parameters))}
    except varlink.VarlinkError as error:
        return {"error": error.error(), "parameters": error.parameters()}


def main(socket, *calls):
    with varlink.Client.new_with_address("unix:" + socket) as client:
        with client.open("org.varlink.service") as service:
            info = service.GetInfo()
            description = service.GetInterfaceDescription(INTERFACE)["description"]
        methods = [
            name
            for name, member in client.get_interface(INTERFACE).members.items()
            if isinstance(member, varlink.scanner._Method)
        ]
        with client.open(INTERFACE) as interface:
            answers = [answer(interface, *call) for call in zip(calls[::2], calls[1::2])]
    found = {"info": info, "description": description, "methods": methods, "answers": answers}
    print(json.dumps(found))


main(*sys.argv[1:])
