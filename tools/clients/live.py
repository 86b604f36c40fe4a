"""Reads the records and embeddings that `afterimage` sends through its local socket (`stream.socket`), as they come.

    python3 tools/clients/live.py unix:/run/afterimage.sock     (or 127.0.0.1:9300; prints one JSON line a record)

From a program of one's own: `for record, embedding in records("unix:/run/afterimage.sock"): ...`. Nothing but Python is
needed. The layout is described in docs/live.md.
"""
import array
import json
import socket
import struct
import sys


def connect(address):
    """`unix:PATH` or `HOST:PORT`."""
    if address.startswith("unix:"):
        stream = socket.socket(socket.AF_UNIX)
        stream.connect(address.removeprefix("unix:"))
        return stream
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)))


def records(address):
    """Pairs of a record (a dictionary) and its embedding (an array of floats), until the program ends.

    `record["seq"]` counts the messages; where some are missing, this reader was too slow.
    """
    with connect(address) as stream, stream.makefile("rb") as file:
        while head := file.read(4):
            (length,) = struct.unpack("<I", head)
            message = file.read(length)
            if len(message) < length:
                raise EOFError("the program ended in the middle of a record")
            (header,) = struct.unpack_from("<I", message)
            embedding = array.array("f", message[4 + header :])
            if sys.byteorder == "big":
                embedding.byteswap()
            yield json.loads(message[4 : 4 + header]), embedding


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: live.py unix:PATH | HOST:PORT")
    for record, embedding in records(sys.argv[1]):
        print(json.dumps({**record, "embedding": list(embedding)}), flush=True)
