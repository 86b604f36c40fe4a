"""Hostile clients at every socket, and brokers that misbehave. The program lives on, `/health` answers, memory stays bounded, and
the end comes when it is asked for."""
import json
import random
import socket
import struct
import threading
import time
import urllib.error
import urllib.request

from common import ENCODER, Setting, end_of, remove, stop, usage

MOST_MB = 500
LIVE = "pattern://7?live=true&rate=100&frames=1000000&segments=100&width=64&height=48"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def connect(address):
    unix = isinstance(address, str)
    stream = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
    stream.settimeout(1)
    stream.connect(address)
    return stream


def frame(body):
    return struct.pack("<I", len(body)) + body


REQUEST = json.dumps({"boxes": [{"box": [0, 0, 30, 30]}, {"box": [5, 5, 20, 40]}]}).encode()


def honest(stream, rng):
    for _ in range(5):
        stream.sendall(frame(REQUEST))
        stream.recv(65536)


def gone(stream, rng):
    stream.sendall(frame(REQUEST))


def silent(stream, rng):
    time.sleep(rng.random())


def slow(stream, rng):
    for byte in frame(REQUEST)[:12]:
        stream.sendall(bytes([byte]))
        time.sleep(0.05)


def garbage(stream, rng):
    for _ in range(20):
        stream.sendall(rng.randbytes(rng.randint(1, 5000)))


def huge(stream, rng):
    bodies = [b'{"boxes":[{"box":[0,0,1,1]}],"' + b"x" * 1_048_000 + b'":1}',
              b'{"camera":"' + b"\x7f" * 1_000_000 + b'","boxes":[' + b",".join([b'{"box":[0,0,1,1]}'] * 1000) + b"]}",
              b'{"boxes":[' + b",".join([b"0"] * 500_000) + b"]}", b"[" * 1_000_000]
    stream.sendall(struct.pack("<I", rng.choice([2**20 + 1, 2**31, 2**32 - 1])) if rng.random() < 0.2 else b"")
    for _ in range(10):
        stream.sendall(frame(rng.choice(bodies)))


def mutated(stream, rng):
    for _ in range(30):
        body = bytearray(REQUEST)
        for _ in range(rng.randint(1, 4)):
            body[rng.randrange(len(body))] = rng.randrange(256)
        stream.sendall(frame(bytes(body)))


def web_slow(stream, rng):
    stream.sendall(b"GET /metrics HTTP/1.1\r\n")
    for _ in range(10):
        stream.sendall(b"X: y\r\n")
        time.sleep(0.1)


def web_garbage(stream, rng):
    stream.sendall(rng.choice([rng.randbytes(3000), b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000, b"GET /health HTTP/1.1\r\n\r\n" * 50, b"\0" * 100]))
    stream.recv(1000)


BOXES = [honest, gone, silent, slow, garbage, huge, mutated]
WEB = [web_slow, web_garbage, silent]
RECORDS = [silent, garbage, gone]


def healthy(port):
    """Any answer counts: what it says is not the strangers' doing."""
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=8).read()
    except urllib.error.HTTPError:
        pass


def clients(setting: Setting):
    """Rounds of a program with every door open, and 8 strangers at once."""
    number = 0
    while setting.left() > 0:
        number += 1
        kind, case, port = "hostile client", f"seed {setting.seed}, round {number}", free_port()
        boxes, records, out = str(setting.path("boxes.sock")), str(setting.path("records.sock")), setting.path("out")
        remove(out)
        process = setting.start([setting.program, "embed", "--encoder", str(ENCODER), "--source", LIVE, "--out", str(out), "--set",
                                 f"box_server.listen=unix:{boxes}", "--set", f"stream.socket=unix:{records}", "--set", f"metrics.listen=127.0.0.1:{port}"])
        counts, ending, lock = [0], threading.Event(), threading.Lock()

        def stranger(seed):
            rng = random.Random(seed)
            while not ending.is_set():
                address, ways = rng.choice([(boxes, BOXES), (boxes, BOXES), (("127.0.0.1", port), WEB), (records, RECORDS)])
                try:
                    with connect(address) as stream:
                        rng.choice(ways)(stream, rng)
                except OSError:
                    time.sleep(0.02)
                with lock:
                    counts[0] += 1

        threads = [threading.Thread(target=stranger, args=(f"{setting.seed}/{number}/{i}",), daemon=True) for i in range(8)]
        time.sleep(1)
        for thread in threads:
            thread.start()
        bad, until, most = None, time.monotonic() + min(15, max(3, setting.left())), 0
        while time.monotonic() < until and bad is None:
            time.sleep(0.5)
            used = usage(process.pid)
            if used is None or process.poll() is not None:
                bad = f"ended with {process.poll()}: {end_of(setting.said())}"
                break
            most = max(most, used[0])
            if used[0] > MOST_MB:
                bad = f"{used[0]:.0f} MB"
            try:
                healthy(port)
            except OSError as error:
                bad = f"/health does not answer: {error}"
        # The strangers go on while the end is asked for.
        code, took = stop(process) if process.poll() is None else (process.poll(), 0)
        ending.set()
        for thread in threads:
            thread.join(5)
        if bad is None and code != 0:
            bad = f"after SIGTERM: {'no end' if code is None else code} in {took:.1f} s: {end_of(setting.said())}"
        if bad is None and "panicked" in setting.said():
            bad = f"panic: {end_of(setting.said())}"
        if bad:
            setting.table.fail(kind, case, bad, hung=code is None, tried=counts[0])
        else:
            setting.table.add(kind, counts[0], counts[0])
            setting.table.note(kind, f"at most {most:.0f} MB")


def answer(way, stream, rng, ending):
    """What a broker of this kind does with a connection."""
    if way == "silent":
        return
    stream.recv(4096)
    accepted = bytes([0x20, 2, 0, 0])
    first = {"garbage": rng.randbytes(rng.randint(1, 2000)), "refuse": bytes([0x20, 2, 0, 5])}.get(way, accepted)
    stream.sendall(first)
    if way == "hugelen":
        stream.sendall(bytes([0x30, 0xFF, 0xFF, 0xFF, 0x7F]) + b"a" * 1000)
    elif way == "badlen":
        stream.sendall(bytes([0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]))
    elif way == "badtopic":
        stream.sendall(bytes([0x30, 6, 0, 200]) + b"abcd")
    elif way == "acks":
        for _ in range(300):
            stream.sendall(bytes([0x40, 2]) + struct.pack(">H", rng.randint(0, 65535)))
    elif way == "never-ack":
        while not ending.is_set():
            try:
                stream.recv(65536)
            except TimeoutError:
                pass
    elif way == "oversized":
        topic = b"afterimage/door/boxes"
        body = b"x" * 2_000_000
        length, rest = b"", len(topic) + 2 + len(body)
        while rest:
            length += bytes([rest % 128 | (128 if rest > 127 else 0)])
            rest //= 128
        stream.sendall(b"\x31" + length + struct.pack(">H", len(topic)) + topic + body)
    elif way == "mutate":
        for _ in range(300):
            topic = b"afterimage/door/boxes"
            packet = bytearray(b"\x30" + bytes([len(topic) + 2 + len(REQUEST)]) + struct.pack(">H", len(topic)) + topic + REQUEST)
            for _ in range(rng.randint(0, 3)):
                packet[rng.randrange(len(packet))] = rng.randrange(256)
            stream.sendall(packet)
            time.sleep(0.002)


BROKERS = ["silent", "garbage", "refuse", "hugelen", "badlen", "badtopic", "acks", "never-ack", "oversized", "mutate", "hangs-up"]


def brokers(setting: Setting):
    """Every kind of broker, again and again until the time is up; every one at least once."""
    number = 0
    while number < len(BROKERS) or setting.left() > 0:
        way = BROKERS[number % len(BROKERS)]
        number += 1
        kind, case, rng = "hostile broker", f"seed {setting.seed}, {way}", random.Random(f"{setting.seed}/{number}")
        listener, ending, kept = socket.create_server(("127.0.0.1", 0)), threading.Event(), []
        listener.settimeout(0.2)

        def serve():
            while not ending.is_set():
                try:
                    stream, _ = listener.accept()
                    stream.settimeout(0.5)
                    kept.append(stream)
                    answer(way, stream, rng, ending)
                    if way in ("hangs-up", "garbage"):
                        stream.close()
                except OSError:
                    pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        out = setting.path("out")
        remove(out)
        broker = f"mqtt.broker=mqtt://127.0.0.1:{listener.getsockname()[1]}"
        process = setting.start([setting.program, "embed", "--encoder", str(ENCODER), "--camera", "door", "--source", LIVE, "--out", str(out),
                                 "--set", broker, "--set", "mqtt.boxes=true", "--set", "mqtt.buffer_megabytes=1"])
        time.sleep(4)
        used = usage(process.pid)
        code, took = stop(process) if process.poll() is None else (process.poll(), 0)
        ending.set()
        thread.join(5)
        for stream in [*kept, listener]:
            stream.close()
        said = setting.said()
        if used is None or code != 0 or "panicked" in said or used[0] > MOST_MB:
            setting.table.fail(kind, case, f"{code} after {took:.1f} s, {used}: {end_of(said)}", hung=code is None)
        else:
            setting.table.add(kind)
