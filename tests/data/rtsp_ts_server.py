#!/usr/bin/env python3
"""rtsp_ts_server.py COMMAND  - an RTSP server on a free port of 127.0.0.1 that sends what COMMAND, a call of ffmpeg, writes:
an MPEG transport stream over RTP, interleaved in TCP, from its start for each who asks. Says `ready PORT` when it can be
asked. Standard library only."""
import shlex
import socket
import struct
import subprocess
import sys
import threading
import time

PACKET = 188
SDP = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\nc=IN IP4 0.0.0.0\r\na=control:track0\r\n"
ANSWERS = {
    "OPTIONS": ("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n", ""),
    "DESCRIBE": ("Content-Type: application/sdp\r\n", SDP),
    "SETUP": ("Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n", ""),
}


def send(connection):
    """Packets as they come, until the other side goes away."""
    began = time.monotonic()
    with subprocess.Popen(shlex.split(sys.argv[1]), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as camera:
        try:
            for number, packet in enumerate(iter(lambda: camera.stdout.read(PACKET), b"")):
                ticks = int((time.monotonic() - began) * 90000) & 0xFFFFFFFF
                rtp = struct.pack(">BBHII", 0x80, 33, number & 0xFFFF, ticks, 7) + packet
                connection.sendall(b"$\0" + struct.pack(">H", len(rtp)) + rtp)
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        camera.kill()


def serve(connection):
    """Answers requests; what comes between them are reports of the receiver."""
    asked = connection.makefile("rb")
    while first := asked.read(1):
        if first == b"$":
            asked.read(int.from_bytes(asked.read(3)[1:], "big"))
            continue
        method = (first + asked.readline()).decode().split()[0]
        headers = dict(line.decode().lower().split(":", 1) for line in iter(asked.readline, b"\r\n"))
        more, body = ANSWERS.get(method, ("Session: 1\r\n", ""))
        head = f"RTSP/1.0 200 OK\r\nCSeq: {headers['cseq'].strip()}\r\n{more}Content-Length: {len(body)}\r\n\r\n"
        connection.sendall((head + body).encode())
        if method == "PLAY":
            threading.Thread(target=send, args=(connection,), daemon=True).start()


with socket.create_server(("127.0.0.1", 0)) as server:
    print("ready", server.getsockname()[1], flush=True)
    while True:
        threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
