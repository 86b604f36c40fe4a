"""The reader of MQTT against a real broker (mosquitto): every record of a run, as in its exports."""
import pathlib
import socket
import subprocess
import tempfile
import threading
import time
import unittest

import numpy as np

from .common import ROOT, installed, program
from clients import mqtt

FRAMES = 40


class Mqtt(unittest.TestCase):
    def setUp(self):
        [mosquitto] = installed("broker", "mosquitto")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        config = self.folder / "mosquitto.conf"
        config.write_text(f"user root\nlistener {self.port} 127.0.0.1\nallow_anonymous true\nlog_type error\n")
        broker = subprocess.Popen([mosquitto, "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(broker.wait)
        self.addCleanup(broker.terminate)
        for _ in range(500):
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                time.sleep(0.02)
        self.fail("mosquitto does not listen")

    def read(self, payload):
        """What the reader gets of a run."""
        came, stream = {}, mqtt.records(f"mqtt://127.0.0.1:{self.port}")

        def take():
            for record, embedding in stream:
                came[record["seq"]] = record, embedding
                if len(came) == FRAMES:
                    return

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        time.sleep(1)
        program(
            "embed", "--encoder", ROOT / "tests/data/tiny.onnx", "--source", f"pattern://1?frames={FRAMES}", "--out",
            payload, "--set", f"mqtt.broker=mqtt://127.0.0.1:{self.port}", "--set", f"mqtt.payload={payload}",
            cwd=self.folder,
        )
        thread.join(60)
        self.assertEqual(sorted(came), list(range(FRAMES)))
        wanted = np.load(self.folder / payload / "embeddings/0000.npy")
        for seq, (record, embedding) in came.items():
            self.assertEqual(record["frame"], seq)
            np.testing.assert_array_equal(np.array(embedding, "f4"), wanted[seq])

    def test_binary(self):
        self.read("binary")

    def test_json(self):
        self.read("json")


class Refused(unittest.TestCase):
    def test_what_is_no_broker_is_named(self):
        with self.assertRaisesRegex(ValueError, "http://a is no mqtt://HOST"):
            next(mqtt.records("http://a"))
