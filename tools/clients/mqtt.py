"""Reads the records and embeddings that `afterimage` sends to an MQTT broker (`mqtt.broker`), as they come.

    python3 tools/clients/mqtt.py mqtt://hub.local [TOPIC]     (TOPIC: afterimage; prints one JSON line a record)

From a program of one's own: `for record, embedding in records("mqtt://hub.local"): ...`. Needs paho-mqtt 2 and nothing
else. Both payloads are read, `mqtt.payload = "binary"` and `"json"`; docs/live.md describes them. `mqtts://` checks the
broker's certificate with `ca_file` or the system's.
"""
import array
import json
import queue
import struct
import sys
import urllib.parse

import paho.mqtt.client as mqtt


def parse(payload):
    """One message: its record (a dictionary) and its embedding (an array of floats)."""
    if payload[:1] == b"{":
        record = json.loads(payload)
        return record, array.array("f", record.pop("embedding"))
    (header,) = struct.unpack_from("<I", payload)
    embedding = array.array("f", payload[4 + header :])
    if sys.byteorder == "big":
        embedding.byteswap()
    return json.loads(payload[4 : 4 + header]), embedding


def records(broker, topic="afterimage", user=None, password=None, ca_file=None, qos=1):
    """Pairs of a record and its embedding of all cameras, for ever; a broker that goes away is waited for.

    With `qos=1` a record may come twice: `record["seq"]` and the camera tell.
    """
    address = urllib.parse.urlsplit(broker)
    secure = address.scheme == "mqtts"
    if address.scheme not in ("mqtt", "mqtts") or not address.hostname:
        raise ValueError(f"{broker} is no mqtt://HOST or mqtts://HOST")
    came = queue.Queue(1024)
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    if user:
        client.username_pw_set(user, password)
    if secure:
        client.tls_set(ca_certs=ca_file)
    # Subscribed anew after each break of the connection. What was refused is raised where records are asked for.
    client.on_connect = lambda client, _, __, code, ___: (
        came.put(ConnectionError(str(code))) if code.is_failure else client.subscribe(f"{topic}/+/embedding", qos))
    client.on_message = lambda _, __, message: came.put(message.payload)
    client.connect(address.hostname, address.port or (8883 if secure else 1883))
    client.loop_start()
    try:
        while True:
            payload = came.get()
            if isinstance(payload, Exception):
                raise payload
            yield parse(payload)
    finally:
        client.disconnect()
        client.loop_stop()


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: mqtt.py mqtt://HOST[:PORT] [TOPIC]")
    for record, embedding in records(*sys.argv[1:]):
        print(json.dumps({**record, "embedding": list(embedding)}), flush=True)
