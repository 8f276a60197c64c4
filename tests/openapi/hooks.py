"""How schemathesis is helped to come beyond the first checks of management, and kept from what would end the run."""

import schemathesis

# Those of the demo, and of run.sh's own file.
UPSTREAM = "demo"
BACKENDS = ("fast", "steady", "slow")


@schemathesis.hook
def filter_body(context, body):
    """Not away from the port that is being tested: two sections say where is listened, and their defaults are other
    ports."""
    if not isinstance(body, dict):
        return True
    sections = body.get("config", body)
    if not isinstance(sections, dict):
        return True
    return not any(name in sections and not sections[name] for name in ("server", "grpc"))


@schemathesis.hook
def map_headers(context, headers):
    """Made-up tags end in 412: a few are enough."""
    tag = (headers or {}).get("If-Match")
    if isinstance(tag, str) and len(tag) % 4:
        headers.pop("If-Match")
    return headers


@schemathesis.hook
def map_body(context, body):
    """Made-up names end in 404: half of them are replaced by what there is."""
    if not isinstance(body, dict):
        return body
    for key in ("upstream", "upstream_id"):
        name = body.get(key)
        if not isinstance(name, str) or not 1 <= len(name) <= 128 or len(name) % 2:
            continue
        body[key] = UPSTREAM
        for of, key in ((body, "backend_id"), (body.get("backend"), "id")):
            if context.operation.path.endswith("/add") or not isinstance(of, dict):
                continue
            if isinstance(of.get(key), str) and 1 <= len(of[key]) <= 128:
                of[key] = BACKENDS[len(of[key]) % len(BACKENDS)]
    return body
