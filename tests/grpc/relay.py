"""Calls of every kind from a Python client of gRPC to a Python server of gRPC, with the proxy between them.

usage: relay.py. Prints the server's port, then reads a line with the HOST:PORT of a proxy that leads there by
`scheme: h2c`, with `health_check: {type: grpc, service: relay, interval: 50ms, failures: 1, successes: 1}`.
"""

import sys
import threading
import time
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

TIMEOUT_SECONDS = 30
CANCELLATIONS = 60
CANCELLED_WITHIN_SECONDS = 0.05
Code = grpc.StatusCode

cancelled_at = []


def unary(request, context):
    context.send_initial_metadata((("x-initial", "1"),))
    context.set_trailing_metadata((("x-trailing", "2"), ("x-bytes-bin", b"\x00\xff")))
    return request


def fails(request, context):
    context.abort(Code.NOT_FOUND, "no such thing: ü 100%")


def fails_late(request, context):
    yield b"first"
    context.abort(Code.DATA_LOSS, "behind the first")


def down(request, context):
    for number in range(int(request)):
        yield b"%d" % number + b"x" * 1000


def up(requests, context):
    return b"%d" % sum(len(request) for request in requests)


def both(requests, context):
    yield from requests


def hangs(request, context):
    ended = threading.Event()
    context.add_callback(lambda: (cancelled_at.append(time.monotonic()), ended.set()))
    yield b"begun"
    ended.wait(TIMEOUT_SECONDS)


HANDLERS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Fails": grpc.unary_unary_rpc_method_handler(fails),
    "FailsLate": grpc.unary_stream_rpc_method_handler(fails_late),
    "Down": grpc.unary_stream_rpc_method_handler(down),
    "Up": grpc.stream_unary_rpc_method_handler(up),
    "Both": grpc.stream_stream_rpc_method_handler(both),
    "Hangs": grpc.unary_stream_rpc_method_handler(hangs),
}


def serve():
    server = grpc.server(futures.ThreadPoolExecutor(32))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("relay.Relay", HANDLERS),))
    servicer = health.HealthServicer()
    servicer.set("relay", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, servicer, port


def error_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code(), error.details()
    raise AssertionError("the call did not fail")


def until(what, done):
    began = time.monotonic()
    while not done():
        assert time.monotonic() - began < TIMEOUT_SECONDS, f"waited for {what}"
        time.sleep(0.001)


class Walk:
    def __init__(self, channel, servicer):
        self.channel, self.servicer = channel, servicer

    def call(self, kind, method):
        return getattr(self.channel, kind)(f"/relay.Relay/{method}")

    def unary(self, request, **more):
        return self.call("unary_unary", "Unary")(request, timeout=TIMEOUT_SECONDS, **more)

    def a_unary_call_has_its_metadata(self):
        answer, call = self.call("unary_unary", "Unary").with_call(b"hello", timeout=TIMEOUT_SECONDS)
        assert answer == b"hello" and dict(call.initial_metadata())["x-initial"] == "1"
        trailing = dict(call.trailing_metadata())
        assert (trailing["x-trailing"], trailing["x-bytes-bin"]) == ("2", b"\x00\xff"), trailing
        large = bytes(range(256)) * 12_000
        assert self.unary(large) == large

    def errors_come_as_they_are(self):
        fails = self.call("unary_unary", "Fails")
        assert error_of(lambda: fails(b"", timeout=TIMEOUT_SECONDS)) == (Code.NOT_FOUND, "no such thing: ü 100%")
        unknown = self.call("unary_unary", "Unknown")
        assert error_of(lambda: unknown(b"", timeout=TIMEOUT_SECONDS))[0] == Code.UNIMPLEMENTED
        late = self.call("unary_stream", "FailsLate")(b"", timeout=TIMEOUT_SECONDS)
        assert next(late) == b"first"
        assert error_of(lambda: next(late)) == (Code.DATA_LOSS, "behind the first")

    def streams_go_each_way(self):
        answers = list(self.call("unary_stream", "Down")(b"1000", timeout=TIMEOUT_SECONDS))
        assert [int(answer.rstrip(b"x")) for answer in answers] == list(range(1000))
        requests = (b"y" * 1000 for _ in range(1000))
        assert self.call("stream_unary", "Up")(requests, timeout=TIMEOUT_SECONDS) == b"1000000"

    def both_sides_talk_in_turn(self):
        turn, answered = threading.Semaphore(1), 0

        def requests():
            for number in range(200):
                assert turn.acquire(timeout=TIMEOUT_SECONDS)
                yield b"%d" % number

        for answer in self.call("stream_stream", "Both")(requests(), timeout=TIMEOUT_SECONDS):
            assert answer == b"%d" % answered
            answered += 1
            turn.release()
        assert answered == 200

    def a_deadline_is_the_clients(self):
        hangs = self.call("unary_stream", "Hangs")
        known = len(cancelled_at)
        assert error_of(lambda: list(hangs(b"", timeout=0.3)))[0] == Code.DEADLINE_EXCEEDED
        until("the end of the call", lambda: len(cancelled_at) > known)

    def cancellations_are_passed_on_at_once(self):
        took = []
        for _ in range(CANCELLATIONS):
            known = len(cancelled_at)
            call = self.call("unary_stream", "Hangs")(b"", timeout=TIMEOUT_SECONDS)
            assert next(call) == b"begun"
            left = time.monotonic()
            call.cancel()
            until("a cancellation", lambda: len(cancelled_at) > known)
            took.append(cancelled_at[known] - left)
        took.sort()
        assert took[int(CANCELLATIONS * 0.99) - 1] < CANCELLED_WITHIN_SECONDS, took[-5:]

    def health_decides(self):
        self.servicer.set("relay", health_pb2.HealthCheckResponse.NOT_SERVING)

        def is_up():
            try:
                return self.unary(b"x") == b"x"
            except grpc.RpcError as error:
                assert error.code() == Code.UNAVAILABLE, error
                return False

        until("the backend to be down", lambda: not is_up())
        self.servicer.set("relay", health_pb2.HealthCheckResponse.SERVING)
        until("the backend to be up", is_up)

    def many_calls_at_once(self):
        with futures.ThreadPoolExecutor(16) as threads:
            assert list(threads.map(lambda number: self.unary(b"%d" % number), range(500))) == [
                b"%d" % number for number in range(500)
            ]


def main():
    server, servicer, port = serve()
    print(port, flush=True)
    channel = grpc.insecure_channel(sys.stdin.readline().strip())
    grpc.channel_ready_future(channel).result(TIMEOUT_SECONDS)
    walk = Walk(channel, servicer)
    steps = [name for name in vars(Walk) if not name.startswith("_") and name not in ("call", "unary")]
    for step in steps:
        try:
            getattr(walk, step)()
        except BaseException:
            print(f"at {step}", file=sys.stderr, flush=True)
            raise
    channel.close()
    server.stop(0)


if __name__ == "__main__":
    main()
