#!/usr/bin/python3
"""rtsp_server.py PORT [USER PASSWORD]  - an RTSP server on 127.0.0.1 with a moving picture of 160x120 at 30 frames a second,
as JPEGs, at /test. Port 0: any. Says `ready PORT` when it can be asked. Needs the packages python3-gi,
gir1.2-gst-rtsp-server-1.0 and gstreamer1.0-plugins-good; ends with 77 where one is missing."""
import sys

try:
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer
except (ImportError, ValueError) as missing:
    print(missing, file=sys.stderr)
    sys.exit(77)

Gst.init(None)
if not all(Gst.ElementFactory.find(name) for name in ("videotestsrc", "jpegenc", "rtpjpegpay")):
    print("GStreamer has no jpegenc or rtpjpegpay", file=sys.stderr)
    sys.exit(77)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(
    "( videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,width=160,height=120,framerate=30/1 ! jpegenc "
    "! rtpjpegpay name=pay0 pt=26 )"
)
factory.set_shared(True)
if len(sys.argv) > 3:
    user, password = sys.argv[2:4]
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
    factory.add_role_from_structure(
        Gst.Structure.new_from_string("viewer, media.factory.access=true, media.factory.construct=true")
    )
server.get_mount_points().add_factory("/test", factory)
if not server.attach(None):
    sys.exit("cannot listen")
print("ready", server.get_bound_port(), flush=True)
GLib.MainLoop().run()
