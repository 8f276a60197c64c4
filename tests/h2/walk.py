"""HTTP/2 as Python sees it: what the h2 package, which shares nothing with the proxy, makes of its frames.

Argument: where the proxy is, host:port, with an origin of the suite behind it. Says "drain" when the proxy is to be
drained, and goes on when a line comes.
"""
import socket
import sys

import h2.config
import h2.connection
import h2.events
from h2.settings import SettingCodes, Settings

PATIENCE = 10


class Peer:
    """One connection."""

    def __init__(self, **settings):
        host, port = sys.argv[1].rsplit(":", 1)
        self.sock = socket.create_connection((host, int(port)), PATIENCE)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        values = {SettingCodes[name.upper()]: value for name, value in settings.items()}
        self.h2.local_settings = Settings(client=True, initial_values=values)
        self.h2.initiate_connection()
        self.flush()

    def flush(self):
        self.sock.sendall(self.h2.data_to_send())

    def open(self, method, path, fields=(), end=True):
        stream = self.h2.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "http"), (":authority", "a.test"), (":path", path), *fields]
        self.h2.send_headers(stream, head, end_stream=end)
        return stream

    def events(self):
        """What comes, piece by piece; each piece of a body makes room for as much again."""
        while True:
            came = self.sock.recv(65536)
            assert came, "the connection ended"
            for event in self.h2.receive_data(came):
                if isinstance(event, h2.events.DataReceived):
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                yield event
            self.flush()

    def answers(self, streams):
        """The whole answers on these streams: stream -> [fields, pieces of the body, trailers]."""
        self.flush()
        answers, left = {stream: [{}, [], {}] for stream in streams}, set(streams)
        for event in self.events():
            match event:
                case h2.events.ResponseReceived():
                    answers[event.stream_id][0] = text(event.headers)
                case h2.events.DataReceived():
                    answers[event.stream_id][1].append(event.data)
                case h2.events.TrailersReceived():
                    answers[event.stream_id][2] = text(event.headers)
                case h2.events.StreamEnded():
                    left.discard(event.stream_id)
                case h2.events.StreamReset() | h2.events.ConnectionTerminated():
                    raise AssertionError(event)
            if not left:
                return answers


def text(fields):
    decoded = ((name.decode() if isinstance(name, bytes) else name, value) for name, value in fields)
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in decoded}


def a_hundred_streams_at_once():
    peer = Peer()
    answers = peer.answers([peer.open("GET", "/size/3000") for _ in range(100)])
    for fields, body, _ in answers.values():
        assert fields[":status"] == "200" and len(b"".join(body)) == 3000, fields


def trailers_both_ways():
    peer = Peer()
    (fields, body, trailers), = peer.answers([peer.open("GET", "/trailers")]).values()
    assert (fields[":status"], b"".join(body), trailers) == ("200", b"hello", {"x-sum": "42"}), (fields, trailers)
    stream = peer.open("POST", "/echo", end=False)
    peer.h2.send_data(stream, b"up and down")
    peer.h2.send_headers(stream, [("x-sum", "7")], end_stream=True)
    (fields, body, _), = peer.answers([stream]).values()
    assert (fields[":status"], b"".join(body)) == ("200", b"up and down"), fields


def a_window_of_one_byte():
    peer = Peer(initial_window_size=1)
    (_, body, _), = peer.answers([peer.open("GET", "/size/40")]).values()
    assert len(body) == 40 and {len(piece) for piece in body} == {1}, body


def goodbye():
    peer = Peer()
    stream = peer.open("GET", "/gate/go")
    peer.flush()
    print("drain", flush=True)
    sys.stdin.readline()
    # The package takes no frame behind a GOAWAY, so it is given no more: that the rest comes is for others to see.
    came = bytearray()
    while piece := peer.sock.recv(65536):
        came += piece
    said = None
    while said is None:
        size = 9 + int.from_bytes(came[:3])
        events, came = peer.h2.receive_data(bytes(came[:size])), came[size:]
        said = next((event for event in events if isinstance(event, h2.events.ConnectionTerminated)), None)
    assert said.error_code == 0 and said.last_stream_id >= stream, said


for step in (a_hundred_streams_at_once, trailers_both_ways, a_window_of_one_byte, goodbye):
    step()
