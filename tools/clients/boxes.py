"""Asks a running `afterimage` for embeddings of boxes (`box_server.listen`), as a detector would.

    python3 tools/clients/boxes.py unix:/run/afterimage-boxes.sock 10,20,110,220 [LEFT,TOP,RIGHT,BOTTOM ...]

asks for boxes of the newest frame (of the only camera) and prints one JSON line an answer. From a program of one's own:

    with Desk("unix:/run/afterimage-boxes.sock") as desk:
        for answer, embedding in desk.ask([{"box": [10, 20, 110, 220], "track": 3}], frame=1234): ...

Nothing but Python is needed. The layout is described in docs/box-server.md.
"""
import array
import json
import struct
import sys

try:
    from .live import connect
except ImportError:
    from live import connect


class Desk:
    def __init__(self, address):
        self.stream = connect(address)
        self.file = self.stream.makefile("rb")
        self.id = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stream.close()

    def ask(self, boxes, **about):
        """Pairs of an answer (a dictionary; with `error` and `reason` where there is no embedding) and an embedding, one a box
        in order. `boxes`: dictionaries with `box` (left, top, right, bottom in pixels) and, where known, `track`, `class`
        and `score`. `about`: `camera`, and `frame` (its number) or `wall_ns` (when it was captured); none: the newest."""
        self.id += 1
        request = json.dumps({"id": self.id, "boxes": boxes, **about}).encode()
        self.stream.sendall(struct.pack("<I", len(request)) + request)
        answers = []
        while len(answers) < len(boxes):
            answer, embedding = self.answer()
            if "index" not in answer:
                raise ValueError(answer["reason"])
            answers.append((answer, embedding))
        return answers

    def answer(self):
        (length,) = struct.unpack("<I", self.read(4))
        message = self.read(length)
        (header,) = struct.unpack_from("<I", message)
        embedding = array.array("f", message[4 + header :])
        if sys.byteorder == "big":
            embedding.byteswap()
        return json.loads(message[4 : 4 + header]), embedding

    def read(self, count):
        data = self.file.read(count)
        if len(data) < count:
            raise EOFError("the program has ended")
        return data


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: boxes.py unix:PATH | HOST:PORT  LEFT,TOP,RIGHT,BOTTOM ...")
    with Desk(sys.argv[1]) as desk:
        for answer, embedding in desk.ask([{"box": [float(x) for x in text.split(",")]} for text in sys.argv[2:]]):
            print(json.dumps({**answer, "embedding": list(embedding)}))
