//! A client of management: JSON over the harness's own HTTP.
//!
//! Owns the way from a verb to an answer. Never knows what an answer should be.

use std::net::SocketAddr;

use serde_json::Value as Json;

use crate::client::Client;
use crate::proxy::Proxy;
use crate::wire::Response;

/// Management of one proxy, with or without a token.
pub struct Api {
    addr: SocketAddr,
    fields: Vec<(String, String)>,
}

impl Api {
    /// Of this proxy, without a token.
    pub fn of(proxy: &Proxy) -> Api {
        Api { addr: proxy.management(), fields: Vec::new() }
    }

    /// With one more field in each request.
    pub fn with(&self, name: &str, value: &str) -> Api {
        let mut fields = self.fields.clone();
        fields.push((name.to_owned(), value.to_owned()));
        Api { addr: self.addr, fields }
    }

    /// With a token.
    pub fn token(&self, token: &str) -> Api {
        self.with("Authorization", &format!("Bearer {token}"))
    }

    /// Sends a request of which the body is these bytes.
    pub fn send(&self, method: &str, path: &str, body: &[u8]) -> Response {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.addr);
        for (name, value) in &self.fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        let mut client = Client::connect(self.addr);
        client.send([head.as_bytes(), body].concat());
        client.response_to(method)
    }

    /// Status and JSON of the answer to a request without a body.
    pub fn ask(&self, method: &str, path: &str) -> (u16, Json) {
        told(&self.send(method, path, b""))
    }

    /// Status and JSON of the answer to a request with this body.
    pub fn tell(&self, method: &str, path: &str, body: &Json) -> (u16, Json) {
        told(&self.send(method, path, body.to_string().as_bytes()))
    }

    /// The JSON of an answer that has to be a 200.
    #[track_caller]
    pub fn get(&self, path: &str) -> Json {
        let (status, json) = self.ask("GET", path);
        assert_eq!(status, 200, "{path}: {json}");
        json
    }

    /// The entity tag of the configuration in use.
    pub fn etag(&self) -> String {
        self.send("GET", "/api/v1/config", b"").fields.one("etag").expect("a tag")
    }
}

#[track_caller]
fn told(response: &Response) -> (u16, Json) {
    let text = response.text();
    let json = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {} {text}", response.status));
    (response.status, json)
}
