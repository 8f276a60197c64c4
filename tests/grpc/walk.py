"""Walks through management over gRPC as a generated Python client: every verb with good, bad and partial input.

usage: walk.py HOST:PORT [FILE], with the modules made of proto/ on PYTHONPATH. With the FILE of the configuration that
the server runs by, it looks at what becomes of that file and at nothing else. The server: the tokens below, one upstream
`default` with the backend `b0`, no configuration file. When it prints `drain`, the proxy has to be drained; it waits
for a line on its standard input until that is done.
"""

import contextlib
import http.client
import io
import json
import re
import sys
import time
import traceback
from pathlib import Path

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import MessageToDict
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from speedmimi.v1 import backend_pb2 as b
from speedmimi.v1 import backend_pb2_grpc
from speedmimi.v1 import config_pb2 as c
from speedmimi.v1 import config_pb2_grpc
from speedmimi.v1 import monitor_pb2 as m
from speedmimi.v1 import monitor_pb2_grpc
from speedmimi.v1 import stats_pb2 as s

FULL, READ, REPORT = "everything", "only-reading", "only-reporting"
TIMEOUT_SECONDS = 30
Code = grpc.StatusCode


class Token(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor, grpc.StreamStreamClientInterceptor):
    """Sends a token and a deadline with every call."""

    def __init__(self, token):
        self.metadata = [("authorization", f"Bearer {token}")] if token else []

    def _with(self, details):
        return details._replace(metadata=self.metadata, timeout=TIMEOUT_SECONDS)

    def intercept_unary_unary(self, go_on, details, request):
        return go_on(self._with(details), request)

    def intercept_unary_stream(self, go_on, details, request):
        return go_on(self._with(details), request)

    def intercept_stream_stream(self, go_on, details, requests):
        return go_on(self._with(details), requests)


class Client:
    def __init__(self, addr, token, authority=None):
        options = [("grpc.default_authority", authority)] if authority else []
        self.channel = grpc.intercept_channel(grpc.insecure_channel(addr, options), Token(token))
        self.backends = backend_pb2_grpc.BackendServiceStub(self.channel)
        self.monitor = monitor_pb2_grpc.MonitorServiceStub(self.channel)
        self.config = config_pb2_grpc.ConfigServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)

    def etag(self):
        return self.config.GetConfig(c.GetConfigRequest()).etag

    def stats(self, backend_id):
        return self.monitor.GetBackendStats(m.GetBackendStatsRequest(upstream="default", backend_id=backend_id))

    def backend(self, backend_id):
        """A backend as the configuration has it."""
        config = json.loads(self.config.GetConfig(c.GetConfigRequest()).config_json)
        return next((one for one in config["backends"]["default"] if one["id"] == backend_id), None)


def refused(code, words, call, request):
    """The call has to be refused so, and nothing changed."""
    try:
        answer = call(request)
    except grpc.RpcError as error:
        assert error.code() == code, f"{error.code()} instead of {code}: {error.details()}"
        assert re.search(words, error.details()), f"{error.details()!r} has no {words!r}"
        return error.details()
    raise AssertionError(f"{request!r} was done, {code} was expected: {answer!r}")


def rest(addr, path, token=FULL, method="GET", headers=None):
    connection = http.client.HTTPConnection(addr, timeout=TIMEOUT_SECONDS)
    connection.request(method, path, headers={"Authorization": f"Bearer {token}", **(headers or {})})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, json.loads(body)


def names(value):
    """The names in a document, with those below; of lists the first item's."""
    if isinstance(value, list):
        return names(value[0]) if value else {}
    if not isinstance(value, dict):
        return None
    return {name: names(below) for name, below in value.items()}


def told(message):
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def missing(theirs, ours, path=""):
    """Names of REST that gRPC does not have."""
    if not isinstance(theirs, dict):
        return []
    if not isinstance(ours, dict):
        return [path]
    return [
        one
        for name, below in theirs.items()
        for one in (missing(below, ours[name], f"{path}.{name}") if name in ours else [f"{path}.{name}"])
    ]


# Steps; each leaves the configuration as it found it.


def adding_and_removing(client, addr):
    add, remove = client.backends.AddBackend, client.backends.RemoveBackend
    check = b.HealthCheck(type="tcp", interval="1h", failures=5)
    new = b.Backend(id="b1", host="127.0.0.1", port=9, weight=7, active=False, health_check=check)
    before = client.etag()
    done = add(b.AddBackendRequest(upstream="default", backend=new))
    assert done.etag == client.etag() != before and not done.persisted, done
    assert done.changed and not done.restart_required, done
    config = client.backend("b1")
    assert (config["weight"], config["active"]) == (7, False), config
    assert config["health_check"]["failures"] == 5 and config["health_check"]["successes"] == 2, config
    assert client.stats("b1").state == s.BACKEND_STATE_DISCONNECTED

    etag = client.etag()
    refused(Code.ALREADY_EXISTS, "has a backend", add, b.AddBackendRequest(upstream="default", backend=new))
    other = b.Backend(id="b2", host="127.0.0.1", port=10)
    refused(Code.NOT_FOUND, "there are: default", add, b.AddBackendRequest(upstream="nowhere", backend=other))
    refused(Code.INVALID_ARGUMENT, "upstream: missing", add, b.AddBackendRequest(backend=other))
    refused(Code.INVALID_ARGUMENT, "backend: missing", add, b.AddBackendRequest(upstream="default"))
    for backend, words in [
        (b.Backend(id="b2", port=1), "host"),
        (b.Backend(id="b2", host="127.0.0.1"), "port"),
        (b.Backend(id="b2", host="127.0.0.1", port=70000), r"port.*1\.\.=65535"),
        (b.Backend(id="b2", host="127.0.0.1", port=9, weight=0), r"weight.*1\.\.=1000"),
        (b.Backend(id="b2", host="127.0.0.1", port=9, scheme="gopher"), "scheme.*http"),
        (b.Backend(id="b 2", host="127.0.0.1", port=9), "id"),
        (b.Backend(id="b2", host="127.0.0.1", port=9, health_check=b.HealthCheck(interval="soon")), "interval.*soon"),
    ]:
        refused(Code.INVALID_ARGUMENT, words, add, b.AddBackendRequest(upstream="default", backend=backend))
    assert client.etag() == etag

    unnamed = b.Backend(host="127.0.0.1", port=11)
    add(b.AddBackendRequest(upstream="default", backend=unnamed, persist=False))
    assert client.backend("default-127.0.0.1-11")["weight"] == 100
    for backend_id in ["default-127.0.0.1-11", "b1"]:
        remove(b.RemoveBackendRequest(upstream="default", backend_id=backend_id))
        assert client.backend(backend_id) is None
    gone = b.RemoveBackendRequest(upstream="default", backend_id="b1")
    refused(Code.NOT_FOUND, '"b1".*it has: b0', remove, gone)
    refused(Code.INVALID_ARGUMENT, "backend_id: missing", remove, b.RemoveBackendRequest(upstream="default"))
    last = b.RemoveBackendRequest(upstream="default", backend_id="b0", if_match='"elsewhere"')
    refused(Code.ABORTED, "changed since", remove, last)


def updating(client, addr):
    update = client.backends.UpdateBackend

    def request(mask=(), upstream="default", **fields):
        backend = b.Backend(**{"id": "b0", **fields})
        return b.UpdateBackendRequest(upstream=upstream, backend=backend, update_mask=FieldMask(paths=mask))

    done = update(request(weight=42, max_conn=5))
    assert sorted(path.rsplit(".")[-1] for path in done.changed) == ["max_conn", "weight"], done
    assert (client.stats("b0").weight, client.stats("b0").max_conn) == (42, 5)
    # Zeros that are set are set; fields that are not set stay.
    update(request(max_conn=0))
    assert (client.stats("b0").weight, client.stats("b0").max_conn) == (42, 0)
    # A mask puts back what is not set, and leaves what it does not name.
    update(request(mask=["weight"], max_conn=9))
    assert (client.stats("b0").weight, client.stats("b0").max_conn) == (100, 0)
    update(request(health_check=b.HealthCheck(type="tcp", interval="1h")))
    update(request(mask=["health_check.interval", "health_check.failures"], health_check=b.HealthCheck(failures=9)))
    check = client.backend("b0")["health_check"]
    assert (check["type"], check["interval"], check["failures"]) == ("tcp", "30s", 9), check
    update(request(mask=["health_check", "max_conn"]))
    assert client.backend("b0").get("health_check") is None

    etag = client.etag()
    refused(Code.INVALID_ARGUMENT, r"weight.*1001.*1\.\.=1000", update, request(weight=1001))
    refused(Code.INVALID_ARGUMENT, "nothing to change", update, request())
    refused(Code.INVALID_ARGUMENT, "update_mask.*speed.*allowed", update, request(mask=["speed"]))
    refused(Code.INVALID_ARGUMENT, "backend.id: missing", update, request(id="", weight=1))
    refused(Code.NOT_FOUND, "it has: b0", update, request(id="b9", weight=1))
    refused(Code.NOT_FOUND, "there are: default", update, request(upstream="nowhere", weight=1))
    assert client.etag() == etag


def two_writers(client, addr):
    etag = client.etag()

    def request(weight, if_match):
        backend = b.Backend(id="b0", weight=weight)
        return b.UpdateBackendRequest(upstream="default", backend=backend, if_match=if_match)

    both = [client.backends.UpdateBackend.future(request(weight, etag)) for weight in (11, 12)]
    codes = [one.code() for one in both]
    assert sorted(codes, key=str) == [Code.ABORTED, Code.OK], codes
    won = 11 if codes[0] == Code.OK else 12
    assert client.stats("b0").weight == won
    client.backends.UpdateBackend(request(13, client.etag()))
    for any_version in ["*", ""]:
        client.backends.UpdateBackend(request(100, any_version))


def taking_out_and_back(client, addr):
    out, back = client.backends.Disconnect, client.backends.Connect
    name = {"upstream": "default", "backend_id": "b0"}
    out(b.DisconnectRequest(**name))
    assert client.stats("b0").state == s.BACKEND_STATE_DISCONNECTED
    back(b.ConnectRequest(**name))
    assert client.stats("b0").state == s.BACKEND_STATE_ACTIVE
    out(b.DisconnectRequest(**name, force=True, timeout="10ms"))
    back(b.ConnectRequest(**name))
    etag = client.etag()
    for timeout in ["soon", "25h", "-1s"]:
        forced = b.DisconnectRequest(**name, force=True, timeout=timeout)
        refused(Code.INVALID_ARGUMENT, "timeout", out, forced)
    refused(Code.NOT_FOUND, "it has: b0", out, b.DisconnectRequest(upstream="default", backend_id="b9"))
    refused(Code.NOT_FOUND, "it has: b0", back, b.ConnectRequest(upstream="default", backend_id="b9"))
    refused(Code.INVALID_ARGUMENT, "missing", back, b.ConnectRequest(upstream="default"))
    assert client.etag() == etag


def configuration(client, addr):
    got = client.config.GetConfig(c.GetConfigRequest())
    assert FULL not in got.config_json and READ not in got.config_json and REPORT not in got.config_json
    theirs = rest(addr, "/api/v1/config")[1]["config"]
    assert got.config_json == json.dumps(theirs, separators=(",", ":"), ensure_ascii=False)
    replace, patch = client.config.ReplaceConfig, client.config.PatchConfig
    # What was read can be sent back as it is.
    same = replace(c.ReplaceConfigRequest(config_json=got.config_json, if_match=got.etag))
    assert same.etag == got.etag and not same.changed, same
    done = patch(c.PatchConfigRequest(patch_json='{"server": {"idle_timeout": "1m"}}', if_match=got.etag))
    assert list(done.changed) == ["server.idle_timeout"] and done.etag != got.etag, done
    done = patch(c.PatchConfigRequest(patch_json='{"server": {"idle_timeout": null}}'))
    assert client.config.GetConfig(c.GetConfigRequest()).config_json == got.config_json

    etag = client.etag()
    stale = c.PatchConfigRequest(patch_json='{"server": {"idle_timeout": "2m"}}', if_match=got.etag)
    refused(Code.ABORTED, "changed since", patch, stale)
    for text, words in [
        ("", "patch_json: missing"),
        ("[]", "no object"),
        ("{", "is not JSON"),
        ("[" * 5000, "is not JSON"),
        ('{"server": {"idle_timeout": "never"}}', r"server\.idle_timeout.*never"),
        ('{"server": {"idel_timeout": "1m"}}', "idle_timeout"),
        # All or nothing.
        ('{"log": {"level": "debug"}, "server": {"max_headers": 0}}', "max_headers"),
    ]:
        refused(Code.INVALID_ARGUMENT, words, patch, c.PatchConfigRequest(patch_json=text))
    refused(Code.INVALID_ARGUMENT, "config_json: missing", replace, c.ReplaceConfigRequest())
    fixed = c.PatchConfigRequest(patch_json='{"server": {"workers": 2}}')
    refused(Code.FAILED_PRECONDITION, "server.workers.*restart", patch, fixed)
    # However many faults there are, their words get through.
    faults = {"backends": {"default": [{"id": f"x{n}", "host": "127.0.0.1", "port": 0} for n in range(1000)]}}
    words = refused(Code.INVALID_ARGUMENT, "faults: ", patch, c.PatchConfigRequest(patch_json=json.dumps(faults)))
    assert len(words) < 4096, len(words)
    refused(Code.OUT_OF_RANGE, "too large", replace, c.ReplaceConfigRequest(config_json=" " * (17 << 20)))
    refused(Code.FAILED_PRECONDITION, "without a configuration file", client.config.Reload, c.ReloadRequest())
    refused(Code.FAILED_PRECONDITION, "nothing to reload", client.config.ReloadCertificates, c.ReloadCertificatesRequest())
    assert not client.config.ListCertificates(c.ListCertificatesRequest()).certificates
    assert client.etag() == etag


def log_level(client, addr):
    level = client.config.SetLogLevel
    assert list(level(c.SetLogLevelRequest(level="warn")).changed) == ["log.level"]
    refused(Code.INVALID_ARGUMENT, "log.level.*loud", level, c.SetLogLevelRequest(level="loud"))
    refused(Code.INVALID_ARGUMENT, "level: missing", level, c.SetLogLevelRequest())
    level(c.SetLogLevelRequest(level="info"))


def figures(client, addr):
    server = client.monitor.GetServerStats(m.GetServerStatsRequest())
    # What nothing was counted for is null in REST and not set here.
    unset = {"mean_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "p999_ms", "max_ms", "expires_first"}
    theirs = names(rest(addr, "/api/v1/stats/server")[1])
    # Not of the interface: the reasons that happened.
    theirs["proxy"].pop("reasons")
    absent = missing(theirs, names(told(server)))
    assert {path.rsplit(".", 1)[-1] for path in absent} <= unset, absent
    assert server.timestamp > 1_700_000_000_000 and server.proxy.uptime > 0 and len(server.proxy.workers) == 1
    assert 0 <= server.cpu_usage <= 100 and server.process.rss_bytes > 1 << 20

    backend = names(told(client.stats("b0")))
    theirs = names(rest(addr, "/api/v1/stats/backend?upstream=default&backend_id=b0")[1])
    absent = missing(theirs, backend)
    unset |= {"ejected_for_ms", "performance", "last_report"}
    assert {path.rsplit(".", 1)[-1] for path in absent} <= unset, absent

    get, every = client.monitor.GetBackendStats, client.backends.ListBackends
    refused(Code.NOT_FOUND, "it has: b0", get, m.GetBackendStatsRequest(upstream="default", backend_id="b9"))
    refused(Code.NOT_FOUND, "there are: default", get, m.GetBackendStatsRequest(upstream="x", backend_id="b0"))
    refused(Code.INVALID_ARGUMENT, "upstream: missing", get, m.GetBackendStatsRequest())
    assert [one.backend_id for one in every(b.ListBackendsRequest()).backends] == ["b0"]
    assert [one.backend_id for one in every(b.ListBackendsRequest(upstream="default")).backends] == ["b0"]
    refused(Code.NOT_FOUND, "there are: default", every, b.ListBackendsRequest(upstream="nowhere"))
    upstreams = client.backends.ListUpstreams(b.ListUpstreamsRequest()).upstreams
    assert [(one.name, list(one.routes), len(one.backends)) for one in upstreams] == [("default", ["default"], 1)]


def watching(client, addr):
    stream = client.monitor.WatchStats(m.WatchStatsRequest())
    seen = [next(stream) for _ in range(3)]
    stream.cancel()
    stamps = [one.server.timestamp for one in seen]
    assert stamps == sorted(set(stamps)) and stamps[-1] - stamps[0] > 1000, stamps
    for one in seen:
        assert one.ready and one.etag == client.etag() and [x.backend_id for x in one.backends] == ["b0"], one


def reporting(client, addr):
    reporter = Client(addr, REPORT)

    def request(backend_id="b0", upstream="default", **performance):
        performance = m.ReportRequest.Performance(**performance)
        return m.ReportRequest(upstream=upstream, backend_id=backend_id, performance=performance)

    assert not client.stats("b0").HasField("last_report")
    reporter.monitor.Report(request(cpu_usage=50, memory_usage=25.5, load_avg_1=1, cpus=2))
    stats = client.stats("b0")
    assert stats.last_report > 1_700_000_000_000 and 0.3 < stats.performance.utilisation < 0.5, stats
    report = reporter.monitor.Report
    refused(Code.INVALID_ARGUMENT, r"cpu_usage.*101.*0\.\.=100", report, request(cpu_usage=101))
    refused(Code.INVALID_ARGUMENT, "memory_usage", report, request(memory_usage=-1))
    for wrong in [float("nan"), float("inf"), -float("inf")]:
        refused(Code.INVALID_ARGUMENT, "load_avg_1", report, request(load_avg_1=wrong))
    refused(Code.INVALID_ARGUMENT, "says nothing", report, request(cpus=4))
    refused(Code.INVALID_ARGUMENT, "performance: missing", report, m.ReportRequest(upstream="default", backend_id="b0"))
    refused(Code.NOT_FOUND, "it has: b0", report, request(backend_id="b9", cpu_usage=1))
    refused(Code.NOT_FOUND, "there are: default", report, request(upstream="x", cpu_usage=1))


def changes_are_remembered(client, addr):
    client.config.SetLogLevel(c.SetLogLevelRequest(level="debug"))
    client.config.SetLogLevel(c.SetLogLevelRequest(level="info"))
    refused(Code.INVALID_ARGUMENT, "", client.config.SetLogLevel, c.SetLogLevelRequest(level="loud"))
    last, before = client.monitor.ListChanges(m.ListChangesRequest()).changes[:2]
    assert (before.who, before.what, list(before.changed)) == ("token", "set log level", ["log.level"]), before
    assert before.from_address.startswith("127.0.0.1:") and not before.HasField("refused"), before
    assert last.HasField("refused") and not last.changed and last.timestamp >= before.timestamp, last


def who_may(client, addr):
    reader, reporter = Client(addr, READ), Client(addr, REPORT)
    nobody, stranger = Client(addr, None), Client(addr, "something-else")
    get, level = c.GetConfigRequest(), c.SetLogLevelRequest(level="debug")
    for one in [nobody, stranger]:
        refused(Code.UNAUTHENTICATED, "valid token", one.config.GetConfig, get)
        refused(Code.UNAUTHENTICATED, "valid token", one.config.SetLogLevel, level)
        refused(Code.UNAUTHENTICATED, "valid token", lambda x: next(one.monitor.WatchStats(x)), m.WatchStatsRequest())
        refused(Code.UNAUTHENTICATED, "valid token", lambda _: services(one), None)
        assert one.health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
    reader.config.GetConfig(get)
    reader.monitor.ListChanges(m.ListChangesRequest())
    next(reader.monitor.WatchStats(m.WatchStatsRequest()))
    changes = [
        (reader.config.SetLogLevel, level),
        (reader.config.Reload, c.ReloadRequest()),
        (reader.config.ReloadCertificates, c.ReloadCertificatesRequest()),
        (reader.config.PatchConfig, c.PatchConfigRequest(patch_json="{}")),
        (reader.config.ReplaceConfig, c.ReplaceConfigRequest(config_json="{}")),
        (reader.backends.AddBackend, b.AddBackendRequest()),
        (reader.backends.RemoveBackend, b.RemoveBackendRequest()),
        (reader.backends.UpdateBackend, b.UpdateBackendRequest()),
        (reader.backends.Disconnect, b.DisconnectRequest()),
        (reader.backends.Connect, b.ConnectRequest()),
        (reader.monitor.Report, m.ReportRequest()),
        (reporter.config.GetConfig, get),
        (reporter.config.SetLogLevel, level),
        (reporter.backends.ListBackends, b.ListBackendsRequest()),
    ]
    for call, request in changes:
        refused(Code.PERMISSION_DENIED, "this token", call, request)
    rebound = Client(addr, FULL, authority="evil.example")
    refused(Code.PERMISSION_DENIED, "Host", rebound.config.GetConfig, get)


def only_grpc_gets_in(client, addr):
    path = "/speedmimi.v1.ConfigService/GetConfig"
    for kind in ["text/plain", "application/grpc-web", "application/grpc"]:
        status, answer = rest(addr, path, method="POST", headers={"Content-Type": kind})
        assert status == 415 and "HTTP/2" in answer["error"], (kind, status, answer)
    page = {"Content-Type": "text/plain", "Origin": "http://evil.example"}
    assert rest(addr, path, method="POST", headers=page)[0] == 403
    raw = client.channel.unary_unary("/speedmimi.v1.ConfigService/Forget", lambda x: x, lambda x: x)
    refused(Code.UNIMPLEMENTED, "", raw, b"")
    raw = client.channel.unary_unary("/elsewhere.Service/Call", lambda x: x, lambda x: x)
    refused(Code.UNIMPLEMENTED, "no such service", raw, b"")
    raw = client.channel.unary_unary("/speedmimi.v1.BackendService/AddBackend", lambda x: x, lambda x: x)
    refused(Code.INTERNAL, "", raw, b"\x0a\xff\xff")
    refused(Code.OUT_OF_RANGE, "too large", raw, b"\x0a\x80\x80\x08" + b"x" * (1 << 17))


def services(client):
    return set(ProtoReflectionDescriptorDatabase(client.channel).get_services())


def reflection(client, addr):
    own = {f"speedmimi.v1.{name}Service" for name in ["Backend", "Config", "Monitor"]}
    assert own | {"grpc.health.v1.Health"} <= services(client), services(client)
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(client.channel))
    described = pool.FindServiceByName("speedmimi.v1.BackendService")
    ours = b.DESCRIPTOR.services_by_name["BackendService"]
    assert [call.name for call in described.methods] == [call.name for call in ours.methods]
    # The same by its present name; the messages are the same too.
    ask = client.channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    answers = list(ask(iter([reflection_pb2.ServerReflectionRequest(list_services="")])))
    assert own <= {one.name for one in answers[0].list_services_response.service}, answers


def the_manual_is_right(client, addr):
    """Runs the example of docs/management.md."""
    manual = (Path(__file__).parents[2] / "docs/management.md").read_text()
    [example] = [code for code in re.findall(r"```python\n(.*?)```", manual, re.DOTALL) if "import grpc" in code]
    for name, ours in [("127.0.0.1:9091", addr), ("TOKEN", FULL), ("backend1", "b0")]:
        assert name in example, name
        example = example.replace(name, ours)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(example, "docs/management.md", "exec"), {})
    lines = said.getvalue().splitlines()
    assert lines[0].startswith("default b0 1 0") and lines[1] == "info" and "weight" in lines[2], lines
    client.backends.UpdateBackend(b.UpdateBackendRequest(upstream="default", backend=b.Backend(id="b0", weight=100)))


def draining_shows_in_health(client, addr):
    stub = Client(addr, None).health
    request, unknown = health_pb2.HealthCheckRequest, health_pb2.HealthCheckRequest(service="nobody")
    status = health_pb2.HealthCheckResponse
    for service in ["", "speedmimi.v1.BackendService"]:
        assert stub.Check(request(service=service)).status == status.SERVING
    refused(Code.NOT_FOUND, "", stub.Check, unknown)
    assert next(stub.Watch(unknown)).status == status.SERVICE_UNKNOWN
    watched = stub.Watch(request())
    assert next(watched).status == status.SERVING
    print("drain", flush=True)
    sys.stdin.readline()
    assert stub.Check(request()).status == status.NOT_SERVING
    assert next(watched).status == status.NOT_SERVING
    assert not next(client.monitor.WatchStats(m.WatchStatsRequest())).ready


def too_often(client, addr):
    """Last: the buckets are empty after it."""

    def until_exhausted(allowed, call):
        for _ in range(5000):
            try:
                call()
            except grpc.RpcError as error:
                if error.code() == Code.RESOURCE_EXHAUSTED:
                    assert "too many" in error.details(), error.details()
                    return
                assert error.code() == allowed, error
        raise AssertionError(f"{call} was allowed 5000 times")

    stranger = Client(addr, "something-else")
    until_exhausted(Code.UNAUTHENTICATED, lambda: stranger.config.GetConfig(c.GetConfigRequest()))
    nothing = b.ConnectRequest(upstream="default", backend_id="b9")
    until_exhausted(Code.NOT_FOUND, lambda: client.backends.Connect(nothing))
    # Looking is still allowed.
    client.etag()


STEPS = [
    adding_and_removing,
    updating,
    two_writers,
    taking_out_and_back,
    configuration,
    log_level,
    figures,
    watching,
    reporting,
    changes_are_remembered,
    who_may,
    only_grpc_gets_in,
    reflection,
    the_manual_is_right,
    draining_shows_in_health,
    too_often,
]


def persisting(client, file):
    """What is changed stands in the file, and what somebody else wrote there stays."""
    before = file.read_text()

    def weigh(weight, **terms):
        backend = b.Backend(id="b0", weight=weight)
        return b.UpdateBackendRequest(upstream="default", backend=backend, **terms)

    def wait_for(told):
        stream = client.monitor.WatchStats(m.WatchStatsRequest())
        seen = [next(stream)]
        # Figures are made once a second: the first ones may be from before.
        while not told(seen[-1]):
            assert len(seen) < 5, seen
            seen.append(next(stream))
        stream.cancel()

    update, reload = client.backends.UpdateBackend, client.config.Reload
    assert update(weigh(7)).persisted
    written = before.replace("weight: 100", "weight: 7")
    assert (file.read_text(), Path(f"{file}.bak").read_text()) == (written, before)
    assert not update(weigh(8, persist=False)).persisted
    assert (file.read_text(), client.stats("b0").weight) == (written, 8)
    new = b.Backend(id="b1", host="127.0.0.1", port=9)
    assert client.backends.AddBackend(b.AddBackendRequest(upstream="default", backend=new)).persisted
    assert "id: b1" in file.read_text()
    assert client.backends.RemoveBackend(b.RemoveBackendRequest(upstream="default", backend_id="b1")).persisted
    assert client.config.SetLogLevel(c.SetLogLevelRequest(level="warn")).persisted
    assert client.config.PatchConfig(c.PatchConfigRequest(patch_json='{"log": null}')).persisted
    assert "b1" not in file.read_text() and "warn" not in file.read_text(), file.read_text()

    file.write_text(written + "# by hand\n")
    refused(Code.FAILED_PRECONDITION, "(?s)changed since it was read.*by hand", update, weigh(9))
    assert client.stats("b0").weight == 8
    reload(c.ReloadRequest())
    assert (client.stats("b0").weight, file.read_text()) == (7, written + "# by hand\n")

    file.write_text(written.replace("workers: 2", "workers: 1"))
    assert list(reload(c.ReloadRequest()).restart_required) == ["server.workers"]
    wait_for(lambda one: list(one.restart_required) == ["server.workers"])
    file.write_text("server: {prot: 1}\n")
    refused(Code.INVALID_ARGUMENT, "did you mean port", reload, c.ReloadRequest())
    wait_for(lambda one: "did you mean port" in one.file_refused)
    file.write_text(written)
    reload(c.ReloadRequest())
    wait_for(lambda one: not one.restart_required and not one.file_refused)


def main():
    addr = sys.argv[1]
    if len(sys.argv) > 2:
        persisting(Client(addr, None), Path(sys.argv[2]))
        return
    client = Client(addr, FULL)
    failed = 0
    for step in STEPS:
        since, before = time.monotonic(), client.config.GetConfig(c.GetConfigRequest()).config_json
        try:
            step(client, addr)
            assert client.config.GetConfig(c.GetConfigRequest()).config_json == before, "it left something behind"
        except Exception:
            failed += 1
            print(f"{step.__name__} failed:", file=sys.stderr)
            traceback.print_exc()
        print(f"{step.__name__}: {time.monotonic() - since:.2f} s", file=sys.stderr)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
