//! HTTP/2 to backends: HTTP/1.1 clients in front of an `h2c` origin.

use crate::h2_origin::H2Origin;
use crate::proxy::Proxy;

fn before(origin: &H2Origin) -> Proxy {
    Proxy::start(&[], &origin.sections("", ""))
}

#[test]
fn a_request_goes_to_an_http2_backend_and_its_answer_comes_back() {
    let origin = H2Origin::start();
    let proxy = before(&origin);
    let mut client = proxy.client();
    let answer = client.get("/a?b=c");
    assert_eq!((answer.status, answer.text().as_str()), (200, "/a"));
    assert_eq!(answer.fields.one("x-a").as_deref(), Some("1"));
    let seen = origin.only();
    assert_eq!((seen.method.as_str(), seen.uri.as_str()), ("GET", "http://a.test/a?b=c"));
    assert_eq!(seen.headers["x-forwarded-host"], "a.test");
    for gone in ["connection", "host", "te", "transfer-encoding"] {
        assert!(!seen.headers.contains_key(gone), "{gone}");
    }
    assert_eq!(client.get("/again").text(), "/again");
    assert_eq!(origin.connections(), 1);
}
