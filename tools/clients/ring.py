"""Reads the records and embeddings that `afterimage` writes into its ring in shared memory (`stream.ring`), as they come.

    python3 tools/clients/ring.py /dev/shm/afterimage     (prints one JSON line a record)

From a program of one's own: `for record, embedding, lost in records("/dev/shm/afterimage"): ...`. Nothing but Python is
needed. The layout is described in docs/live.md. On processors other than x86-64, Python cannot order what it reads; use
the socket there where a torn record in a million would matter.
"""
import array
import json
import mmap
import struct
import sys
import time

HEADER, SLOT_HEAD = 64, 16


def records(path, pause_secs=0.0002):
    """A record (a dictionary), its embedding (floats) and how many were lost before it, until the writer ends."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as ring:
        if ring[:8] != b"AFRING01":
            raise ValueError(f"{path} is no ring of records")
        slot_bytes, slots = struct.unpack_from("<II", ring, 8)
        after, lost = struct.unpack_from("<Q", ring, 16)[0], 0
        while True:
            written, closed = struct.unpack_from("<QQ", ring, 16)
            if after == written:
                if closed:
                    return
                time.sleep(pause_secs)
                continue
            oldest = max(after, written - slots)
            lost += oldest - after
            after = oldest + 1
            at = HEADER + oldest % slots * slot_bytes
            state, length = struct.unpack_from("<QI", ring, at)
            message = ring[at + SLOT_HEAD : at + SLOT_HEAD + length]
            # The writer was here before, or while this was copied.
            if state != 2 * oldest + 2 or struct.unpack_from("<Q", ring, at)[0] != state:
                lost += 1
                continue
            (header,) = struct.unpack_from("<I", message)
            yield json.loads(message[4 : 4 + header]), array.array("f", message[4 + header :]), lost
            lost = 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: ring.py FILE")
    for record, embedding, lost in records(sys.argv[1]):
        print(json.dumps({**record, "lost": lost, "embedding": list(embedding)}), flush=True)
