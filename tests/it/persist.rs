//! Changes that last: the configuration file written by management and read again when somebody else writes it.
//!
//! Owns what becomes of the file. How it is edited and replaced, and what a crash leaves, are for the unit tests.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use serde_json::json;

use crate::api::Api;
use crate::dir::Dir;
use crate::origin::{self, Origin};
use crate::proxy::Proxy;
use crate::wait;

/// A configuration with comments and the backend `b0`; `server` is further keys of that section.
pub fn text(origin: &Origin, server: &str) -> String {
    format!(
        "# What we run.\nserver: {{host: 127.0.0.1, port: 0, workers: 2, fd_tables: shared, shutdown_timeout: 1s, {server}}}\n\
         grpc: {{port: 0}}\nbackends:\n  default:\n    # The old machine.\n    - id: b0\n      host: 127.0.0.1\n      \
         port: {}\n      weight: 100   # as long as it lasts\n\n\
         routing:\n  default:   # everything\n    upstream: default\n",
        origin.port()
    )
}

fn weight(api: &Api) -> u64 {
    api.get("/api/v1/config")["config"]["backends"]["default"][0]["weight"].as_u64().expect("a weight")
}

fn set_weight(api: &Api, weight: u64, query: &str) -> (u16, serde_json::Value) {
    let body = json!({"upstream": "default", "backend": {"id": "b0", "weight": weight}});
    api.tell("PUT", &format!("/api/v1/backends/update{query}"), &body)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("a file")
}

#[test]
fn a_change_rewrites_its_line_and_no_other() {
    let (dir, origin) = (Dir::new("persist"), Origin::start(origin::by_path));
    let before = text(&origin, "");
    dir.write("f.yaml", &before);
    let path = dir.path("f.yaml");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("a mode");
    let proxy = Proxy::from_file(&path);
    let api = Api::of(&proxy);
    let (status, done) = set_weight(&api, 7, "");
    assert_eq!((status, &done["persisted"]), (200, &json!(true)), "{done}");
    let after = before.replace("weight: 100   # as", "weight: 7   # as");
    assert_eq!(read(&path), after);
    assert_eq!(read(&dir.path("f.yaml.bak")), before);
    assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o640);
    // A backend more, and gone again.
    let backend = json!({"id": "b1", "host": "127.0.0.1", "port": origin.port()});
    let (status, done) = api.tell("POST", "/api/v1/backends/add", &json!({"upstream": "default", "backend": backend}));
    assert_eq!(status, 201, "{done}");
    assert!(read(&path).contains("id: b1") && read(&path).contains("# The old machine."), "{}", read(&path));
    let (status, done) = api.ask("DELETE", "/api/v1/backends/remove?upstream=default&backend_id=b1");
    assert_eq!(status, 200, "{done}");
    assert_eq!(read(&path), after);
    // Who starts by the file finds what was in use.
    let shown = api.get("/api/v1/config");
    proxy.shutdown();
    let again = Proxy::from_file(&path);
    assert_eq!(Api::of(&again).get("/api/v1/config"), shown);
}

#[test]
fn what_is_not_to_be_written_is_not() {
    let (dir, origin) = (Dir::new("unwritten"), Origin::start(origin::by_path));
    let before = text(&origin, "");
    dir.write("f.yaml", &before);
    let path = dir.path("f.yaml");
    let proxy = Proxy::from_file(&path);
    let api = Api::of(&proxy);
    let (status, done) = set_weight(&api, 9, "?persist=false");
    assert_eq!((status, &done["persisted"]), (200, &json!(false)));
    assert_eq!((weight(&api), read(&path)), (9, before.clone()));
    // Another change, written, leaves the unwritten one unwritten, and in use.
    assert_eq!(api.tell("PATCH", "/api/v1/config", &json!({"server": {"max_headers": 50}})).0, 200);
    assert!(read(&path).contains("max_headers: 50") && read(&path).contains("weight: 100"), "{}", read(&path));
    assert_eq!(weight(&api), 9);
    // Read again, the file counts.
    assert_eq!(api.ask("POST", "/api/v1/config/reload").0, 200);
    assert_eq!(weight(&api), 100);
}

#[test]
fn a_file_that_somebody_else_changed_is_not_overwritten() {
    let (dir, origin) = (Dir::new("by-hand"), Origin::start(origin::by_path));
    dir.write("f.yaml", text(&origin, ""));
    let path = dir.path("f.yaml");
    let proxy = Proxy::from_file(&path);
    let api = Api::of(&proxy);
    let by_hand = text(&origin, "").replace("# What we run.", "# What we run now.");
    fs::write(&path, &by_hand).expect("a file");
    let (status, refused) = set_weight(&api, 9, "");
    let error = refused["error"].as_str().expect("words");
    assert!(status == 409 && error.contains("What we run now"), "{error}");
    assert_eq!((weight(&api), read(&path)), (100, by_hand));
    assert_eq!(api.ask("POST", "/api/v1/config/reload").0, 200);
    assert_eq!(set_weight(&api, 9, "").0, 200);
    assert_eq!(weight(&api), 9);
}

#[test]
fn what_cannot_be_written_changes_nothing() {
    let (dir, origin) = (Dir::new("read-only"), Origin::start(origin::by_path));
    dir.write("f.yaml", text(&origin, ""));
    let path = dir.path("f.yaml");
    let proxy = Proxy::from_file(&path);
    let api = Api::of(&proxy);
    let etag = api.etag();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).expect("a mode");
    let (status, refused) = set_weight(&api, 9, "");
    assert_eq!(status, 409, "{refused}");
    assert_eq!((weight(&api), api.etag()), (100, etag));
    assert_eq!(set_weight(&api, 9, "?persist=false").0, 200);
    assert_eq!(api.get("/api/v1/changes")["changes"][1]["refused"], refused["error"]);
}

#[test]
fn a_key_that_waits_for_a_restart_hinders_no_other_change() {
    let (dir, origin) = (Dir::new("waits"), Origin::start(origin::by_path));
    let before = text(&origin, "");
    dir.write("f.yaml", &before);
    let path = dir.path("f.yaml");
    let proxy = Proxy::from_file(&path);
    let api = Api::of(&proxy);
    fs::write(&path, before.replace("workers: 2", "workers: 3")).expect("a file");
    let (status, done) = api.ask("POST", "/api/v1/config/reload");
    assert_eq!((status, &done["restart_required"]), (200, &json!(["server.workers"])), "{done}");
    let (status, done) = set_weight(&api, 9, "");
    assert_eq!((status, &done["restart_required"]), (200, &json!(["server.workers"])), "{done}");
    assert_eq!(weight(&api), 9);
    assert!(read(&path).contains("workers: 3") && read(&path).contains("weight: 9"), "{}", read(&path));
    // Another number of them is still for the file alone; the one that runs is none to be asked for.
    assert_eq!(api.tell("PATCH", "/api/v1/config", &json!({"server": {"workers": 4}})).0, 409);
    let (status, done) = api.tell("PATCH", "/api/v1/config", &json!({"server": {"workers": 2}}));
    assert_eq!((status, &done["restart_required"]), (200, &json!([])), "{done}");
}

#[test]
fn a_written_change_of_a_variable_is_refused() {
    let (dir, origin) = (Dir::new("variable"), Origin::start(origin::by_path));
    let before = text(&origin, "").replace("weight: 100", "weight: ${SPEEDMIMI_TEST_UNSET:-100}");
    dir.write("f.yaml", &before);
    let path = dir.path("f.yaml");
    let proxy = Proxy::from_file(&path);
    let api = Api::of(&proxy);
    assert_eq!(weight(&api), 100);
    let (status, refused) = set_weight(&api, 9, "");
    assert!(status == 409 && refused["error"].as_str().is_some_and(|e| e.contains("persist=false")), "{refused}");
    assert_eq!((weight(&api), read(&path)), (100, before));
}

#[test]
fn a_file_that_changes_is_read_again_and_a_broken_one_is_not_used() {
    let (dir, origin) = (Dir::new("watch"), Origin::start(origin::by_path));
    // As Kubernetes mounts it: the file is a link into a directory that is a link.
    for (name, weight) in [("v1", "100"), ("v2", "200")] {
        fs::create_dir(dir.path(name)).expect("a directory");
        fs::write(dir.path(name).join("f.yaml"), text(&origin, "watch: true").replace("100", weight)).expect("a file");
    }
    symlink("v1", dir.path("data")).expect("a link");
    symlink("data/f.yaml", dir.path("f.yaml")).expect("a link");
    let path = dir.path("f.yaml");
    let proxy = Proxy::from_file(&path);
    let api = Api::of(&proxy);
    let mut kept = proxy.client();
    assert_eq!(kept.get("/").status, 200);
    symlink("v2", dir.path("data-new")).expect("a link");
    fs::rename(dir.path("data-new"), dir.path("data")).expect("a swap");
    wait::until("the swapped file to be read", || weight(&api) == 200);
    // An editor that replaces it.
    let new = text(&origin, "watch: true").replace("100", "300");
    fs::write(dir.path("v2").join("f.yaml~"), &new).expect("a file");
    fs::rename(dir.path("v2").join("f.yaml~"), dir.path("v2").join("f.yaml")).expect("a file");
    wait::until("the replaced file to be read", || weight(&api) == 300);
    // A fault in it: told, and nothing is changed.
    fs::write(&path, new.replace("weight: 300", "wieght: 400")).expect("a file");
    wait::until("the broken file to be told", || api.get("/api/v1/config")["file_refused"].is_string());
    let told = api.get("/api/v1/config")["file_refused"].as_str().unwrap_or("").to_owned();
    assert!(told.contains("did you mean weight?") && weight(&api) == 300, "{told}");
    assert!(api.send("GET", "/metrics", b"").text().contains("speedmimi_config_file_refused 1\n"));
    fs::write(&path, new.replace("weight: 300", "weight: 400")).expect("a file");
    wait::until("the cured file to be read", || weight(&api) == 400);
    assert!(api.get("/api/v1/config")["file_refused"].is_null());
    // What is written by management itself is no news.
    assert_eq!(set_weight(&api, 500, "").0, 200);
    let before = api.get("/api/v1/changes")["changes"].as_array().map(Vec::len);
    let looks = || api.get("/api/v1/stats/server")["timestamp"].as_u64().unwrap_or(0);
    let since = looks();
    wait::until("two looks at the file", || looks() > since + 2500);
    assert_eq!(api.get("/api/v1/changes")["changes"].as_array().map(Vec::len), before);
    assert!(fs::symlink_metadata(&path).expect("a link").is_symlink());
    assert_eq!(kept.get("/").status, 200, "the connection outlived it all");
}

#[test]
fn whoever_looks_at_figures_holds_up_no_change() {
    let (dir, origin) = (Dir::new("persist-look"), Origin::start(origin::by_path));
    dir.write("f.yaml", text(&origin, ""));
    let path = dir.path("f.yaml");
    let proxy = Proxy::from_file(&path);
    let before = proxy.board().shown().etag.clone();
    dir.write("f.yaml", text(&origin, "max_headers: 50"));
    proxy.watch().with(|_| {
        proxy.reload_file();
        wait::until("the reload", || proxy.board().shown().etag != before);
    });
}

#[test]
fn a_token_file_that_is_gone_holds_up_only_what_needs_it() {
    let (dir, origin) = (Dir::new("persist-token"), Origin::start(origin::by_path));
    let token = dir.path("token");
    fs::write(&token, "everything-goes\n").expect("a file");
    let tokens = format!("grpc: {{port: 0, token_file: {}}}", token.display());
    dir.write("f.yaml", text(&origin, "").replace("grpc: {port: 0}", &tokens));
    let proxy = Proxy::from_file(&dir.path("f.yaml"));
    let api = Api::of(&proxy).token("everything-goes");
    let (status, done) = set_weight(&api, 7, "");
    assert_eq!((status, done.get("warnings")), (200, None), "{done}");
    fs::remove_file(&token).expect("a file");
    let (status, done) = set_weight(&api, 8, "");
    assert_eq!((status, &done["persisted"]), (200, &json!(true)), "{done}");
    assert!(done["warnings"][0].as_str().is_some_and(|words| words.contains("grpc.token_file")), "{done}");
    assert_eq!(Api::of(&proxy).ask("GET", "/api/v1/config").0, 401, "the token stays");
    assert_eq!(weight(&api), 8);
    let another = json!({"grpc": {"token_file": dir.path("another").display().to_string()}});
    let (status, refused) = api.tell("PATCH", "/api/v1/config", &another);
    assert!(status == 409 && refused["error"].as_str().is_some_and(|e| e.contains("grpc.token_file")), "{refused}");
}
