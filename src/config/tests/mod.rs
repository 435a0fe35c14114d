//! What an operator is told, mistake by mistake.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::*;

mod agent;
mod budget;
mod example;
mod guard;
mod model;
mod oidc;
mod otlp;
mod page;
mod route;
mod tool;

const KINDS: &[&str] = &["azure", "bedrock", "demo", "groq", "ollama", "openai", "vertex"];

const SOUND: &str = r#"
[providers.groq]
kind = "groq"
[routes.fast]
targets = ["groq/llama"]
"#;

fn parse(text: &str) -> Result<Config, Vec<Problem>> {
    Config::parse(text, Path::new("switchpoint.toml"), KINDS)
}

/// The problems as printed, one per line, after the file's name.
fn complaints(text: &str) -> String {
    let problems = parse(text).err().unwrap_or_default();
    problems.iter().fold(String::new(), |mut all, problem| {
        let shown = problem.to_string();
        let _ = writeln!(all, "{}", shown.strip_prefix("switchpoint.toml:").unwrap());
        all
    })
}

/// As `complaints`, for additions to a config that is sound without them.
fn complaints_beside_sound(text: &str) -> String {
    complaints(&format!("{SOUND}{text}"))
}

// === What is told ===

#[test]
fn five_mistakes_are_five_lines() {
    let text = r#"
[server]
lisen = "127.0.0.1:4000"
drain = "30 sec"
[providers.groq]
kind = "grok"
[routes.fast]
targets = [
    "groq/llama",
    "gorq/llama",
]
[cachet]
mode = "on"
"#;
    assert_eq!(
        complaints(text),
        r#"3: server.lisen: "lisen" is not known; did you mean "listen"?
4: server.drain: "30 sec" is not a duration; write "250ms", "10s", "5m", "2h" or "1d"
6: providers.groq.kind: no provider kind is called "grok"; did you mean "groq"?
10: routes.fast.targets[1]: no provider is called "gorq"; did you mean "groq"?
12: cachet: [cachet] is not known; did you mean "cache"?
"#
    );
}

#[test]
fn a_problem_names_its_file_and_line() {
    let problems =
        parse("[routes.fast]\ntargets = [\"gorq/x\"]\n[providers.groq]\nkind = \"groq\"");
    assert_eq!(
        problems.unwrap_err()[0].to_string(),
        "switchpoint.toml:2: routes.fast.targets[0]: \
         no provider is called \"gorq\"; did you mean \"groq\"?"
    );
}

#[test]
fn unknown_keys_are_found_at_every_level() {
    let text = r#"
[keys.a]
secret = "x"
budgt = []
[providers.other]
kind = "demo"
timeouts = { conect = "1s" }
[routes.other]
targets = [{ target = "groq/x", wieght = 2 }]
[server.tls]
cert = "a"
key = "b"
chain = "c"
"#;
    assert_eq!(
        complaints_beside_sound(text),
        r#"9: keys.a.budgt: "budgt" is not known; did you mean "budget"?
12: providers.other.timeouts.conect: "conect" is not known; did you mean "connect"?
14: routes.other.targets[0].wieght: "wieght" is not known; did you mean "weight"?
18: server.tls.chain: "chain" is not known; known: cert, key
"#
    );
}

#[test]
fn values_of_the_wrong_type_or_range_say_what_is_wanted() {
    let text = r#"
[server]
listen = "localhost"
max_body = "64MB"
keepalive = "0s"
idle_timeout = 10
drain = "9999999d"
max_connections = 0
workers = "all"
[telemetry]
log = "jsn"
level = "info,hyper=loud"
access_log = "yes"
[providers]
other = "groq"
"#;
    assert_eq!(
        complaints(text),
        r#"3: server.listen: "localhost" is not an address; write an IP and a port, as in "127.0.0.1:4000"
4: server.max_body: "64MB" is not a size; write "512KiB", "64MiB", "1GiB", or a number of bytes
5: server.keepalive: must be longer than 0
6: server.idle_timeout: 10 is not a duration; write "250ms", "10s", "5m", "2h" or "1d"
7: server.drain: must be at most 365d
8: server.max_connections: must be a whole number from 1 to 4294967295, not 0
9: server.workers: must be a whole number from 0 to 1024, not "all"
11: telemetry.log: "jsn" is not a log format; did you mean "json"?
12: telemetry.level: "loud" is not a log level; known: off, error, warn, info, debug, trace
13: telemetry.access_log: must be true or false, not text
15: providers.other: must be a table, not text
"#
    );
}

#[test]
fn what_a_provider_cannot_use_is_refused() {
    let text = r#"
[providers.a]
base_url = "api.example.com/v1"
proxy = "socks5://127.0.0.1:1"
api_key = "x"
api_keys = ["y"]
[providers."b c"]
kind = "demo"
base_url = "https://api.example.com/v1?x=1"
proxy = "http://user:canary@127.0.0.1:1"
headers = { "a b" = "x", content-length = "1", x-a = "1", X-A = "2" }
models = [""]
[providers.agent]
kind = "demo"
api_key = "secret://vault"
"#;
    assert_eq!(
        complaints(text),
        r#"2: providers.a: `kind` is missing
3: providers.a.base_url: is not a URL; write one as in "https://api.example.com/v1"
4: providers.a.proxy: is not a URL; write one as in "https://api.example.com/v1"
6: providers.a.api_keys: `api_key` and `api_keys` are both written; keep one
7: providers."b c": "b c" is not a name; use letters, digits and . _ -
9: providers."b c".base_url: must not contain a query or a fragment
10: providers."b c".proxy: must not contain a user name or password
11: providers."b c".headers."a b": "a b" is not a header name
11: providers."b c".headers.content-length: `content-length` frames the message and cannot be set
11: providers."b c".headers.x-a: is written twice; upper and lower case make no difference
12: providers."b c".models[0]: must not be empty
13: providers.agent: this name is reserved for agents
15: providers.agent.api_key: names no manager of secrets; write secret://vault/…, secret://aws-sm/… or secret://gcp-sm/…
"#
    );
}

#[test]
fn a_route_needs_targets_that_exist_and_differ() {
    let text = r#"
[routes.a]
[routes.b]
targets = []
[routes.c]
targets = "groq/x"
attempts = 21
[routes.d]
targets = ["groq", "groq/", "groq/a/b", { target = "groq/a/b" }]
[routes."e/f"]
targets = ["groq/x"]
"#;
    assert_eq!(
        complaints_beside_sound(text),
        r#"7: routes.a: `targets` is missing
9: routes.b.targets: must name at least one target
11: routes.c.targets: must be a list in [brackets], not text
12: routes.c.attempts: must be a whole number from 1 to 20, not 21
14: routes.d.targets[0]: "groq" is not a target; write "provider/model"
14: routes.d.targets[1]: "groq/" is not a target; write "provider/model"
14: routes.d.targets[3]: "groq/a/b" is named twice in this route
15: routes."e/f": "e/f" is not a name; use letters, digits and . _ -
"#
    );
}

#[test]
fn a_key_needs_one_secret_and_grants_that_can_match() {
    let text = r#"
[keys.neither]
[keys.both]
secret = "x"
hash = "sha256:00"
[keys.twin]
hash = "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
[keys.good]
secret = "y"
routes = ["fast", "fa*", "*", "groq/*", "groq/llama", "agent/x", "agent/*"]
[keys.grants]
secret = "z"
routes = ["fst", "gorq/*", "f*t", "groq/"]
"#;
    // SHA-256 of "x", the secret of `both`.
    assert_eq!(
        complaints_beside_sound(text),
        r#"7: keys.neither: write either `secret` or `hash`, and only one of them
8: keys.both: write either `secret` or `hash`, and only one of them
10: keys.both.hash: must be "sha256:" and 64 hex digits
11: keys.twin: has the same secret as the key "both"
18: keys.grants.routes[0]: no route is called "fst"; did you mean "fast"?
18: keys.grants.routes[1]: no provider is called "gorq"; did you mean "groq"?
18: keys.grants.routes[2]: "f*t": a `*` may only stand at the end
18: keys.grants.routes[3]: "groq/" names nothing after the `/`
"#
    );
}

#[test]
fn listeners_that_can_never_work_are_refused() {
    assert_eq!(
        complaints("[admin]\nlisten = \"0.0.0.0:4001\""),
        "2: admin.listen: 0.0.0.0:4001 is not loopback, so `key` must be set\n"
    );
    assert_eq!(
        complaints("[server]\nlisten = [\"[::1]:1\", \"127.0.0.1:4001\"]"),
        "2: server.listen: 127.0.0.1:4001 is taken by both [server] and [admin]\n"
    );
    assert_eq!(
        complaints("[server]\nlisten = []\ntls = { cert = \"a\" }"),
        "2: server.listen: must name at least one address\n3: server.tls: `key` is missing\n"
    );
    assert_eq!(
        complaints("[server]\nmax_body = \"2GiB\""),
        "2: server.max_body: `max_body` (2147483648 bytes) exceeds `body_budget` (1073741824 \
         bytes), so the largest bodies could never be read\n"
    );
}

#[test]
fn the_address_of_a_store_is_never_repeated() {
    let told = |url: &str| complaints(&format!("[store]\nurl = \"{url}\""));
    for url in [
        "postgres:user:canary@db",
        "redis://user:canary@db",
        "sqlite:",
        "sqlite::memory:",
        "sqlite:a/",
        "memory",
    ] {
        let told = told(url);
        assert!(told.contains("is not a store; write") && !told.contains("canary"), "{told}");
    }
    assert!(told("sqlite://state.db").contains("takes a plain path"));
    assert!(complaints("[store]\nshard = \"x\"").contains("\"shard\" is not known"));
}

#[test]
fn replicas_need_a_store_that_they_share() {
    let shared = "[store]\nshared = \"rediss://user:canary@host:6379/2\"\nreplicas = 3";
    let config = parse(shared).unwrap();
    let url = config.store.shared.as_ref().map(Secret::expose);
    assert_eq!((url, config.store.replicas), (Some("rediss://user:canary@host:6379/2"), 3));
    assert!(!format!("{config:?}").contains("canary"));
    assert!(complaints("[store]\nreplicas = 2").contains("a store that they share"));
    let told = complaints("[store]\nshared = \"http://canary\"");
    assert!(told.contains("is not a shared store") && !told.contains("canary"), "{told}");
}

#[test]
fn a_store_on_a_server_has_a_journal_here_and_a_password_is_better_elsewhere() {
    let read = |more: &str| parse(&format!("[store]\n{more}")).unwrap();
    let config = read("url = \"postgres://user:canary@db/state\"\nretention = \"36h\"");
    assert_eq!(config.store.journal(), Some("switchpoint.journal".into()));
    assert_eq!(config.store.retention_days, Some(2));
    assert!(!format!("{:?}", config.store).contains("canary"));
    assert!(config.warnings.iter().any(|warning| warning.to_string().contains("in clear")));
    let config = read("url = \"postgres://user@db/state\"\njournal = \"spool\"");
    assert_eq!(config.store.journal(), Some("spool".into()));
    assert!(!config.warnings.iter().any(|warning| warning.to_string().contains("in clear")));
    let config = read("url = \"sqlite:a.db\"");
    assert_eq!(config.store.journal(), Some("a.db.journal".into()));
}

#[test]
fn what_is_to_be_recorded_is_of_routes_that_there_are() {
    let record = "[routes.fast]\ntargets = [\"demo/a\"]\n[providers.demo]\nkind = \"openai\"\n\
                  api_key = \"k\"\n[record]\nconsent = true\n";
    let told = complaints(&format!("{record}routes = [\"fa*\", \"direct\", \"fats\"]\n"));
    let expected = "8: record.routes[2]: there is no route \"fats\"; did you mean \"fast\"?\n";
    assert_eq!(told, expected);
    let config = parse(&format!("{record}keys = [\"none\"]\n")).unwrap();
    let warned = |warning: &Problem| warning.message.contains("there is no key \"none\"");
    assert!(config.warnings.iter().any(warned), "a key may be made at run time");
}

#[test]
fn a_slip_of_syntax_is_one_problem_with_its_line() {
    let duplicate = parse("[server]\ndrain = \"1s\"\ndrain = \"2s\"\n").unwrap_err();
    assert_eq!(duplicate.len(), 1);
    assert_eq!(duplicate[0].to_string(), "switchpoint.toml:3: duplicate key `drain`");
    let unclosed = parse("[server]\ndrain = \"1s\n[admin]\n").unwrap_err();
    assert_eq!((unclosed.len(), unclosed[0].line), (1, 2), "{unclosed:?}");
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem_of_the_file() {
    let problems = Config::load(Path::new("nowhere.toml"), KINDS).unwrap_err();
    let shown = problems[0].to_string();
    assert!(shown.starts_with("nowhere.toml: the file cannot be read: No such"), "{shown}");
}

// === Secrets ===

#[test]
fn secrets_come_from_the_environment_a_file_or_the_text() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("key"), "from-file\n").unwrap();
    let path = folder.path().join("switchpoint.toml");
    let text =
        "[providers.a]\nkind = \"demo\"\napi_keys = [\"env:PATH\", \"file:key\", \"here\"]\n";
    fs::write(&path, text).unwrap();
    let config = Config::load(&path, KINDS).unwrap();
    let keys: Vec<&str> = config.providers["a"].api_keys.iter().map(Secret::expose).collect();
    assert_eq!(keys, [variable("PATH").unwrap().as_str(), "from-file", "here"]);
    let warnings: Vec<&str> = config.warnings.iter().map(|warning| warning.path.as_str()).collect();
    assert_eq!(warnings, ["providers.a.api_keys[2]"]);
    assert_eq!(config.source, Source::File(path));
}

#[test]
fn a_secret_that_is_not_there_is_a_problem_at_its_line() {
    let text = r#"
[keys.ci]
secret = "env:SWITCHPOINT_TEST_UNSET"
[admin]
listen = "0.0.0.0:4001"
key = "file:/nowhere/key"
"#;
    assert_eq!(
        complaints(text),
        r#"3: keys.ci.secret: the environment variable "SWITCHPOINT_TEST_UNSET" is not set
6: admin.key: /nowhere/key: No such file or directory (os error 2)
"#
    );
}

#[test]
fn no_secret_shows_in_a_config_printed_for_debugging() {
    let text = r#"
[admin]
key = "canary"
[keys.a]
secret = "canary2"
[providers.a]
kind = "demo"
api_key = "canary"
headers = { x-key = "canary" }
"#;
    let config = parse(text).unwrap();
    assert!(!format!("{config:?}").contains("canary"));
    assert_eq!(config.warnings.len(), 3, "a literal header may be no secret at all");
}

#[test]
fn no_secret_shows_in_a_problem_caused_by_its_place() {
    let misplaced = [
        "[providers.a]\nkind = \"demo\"\napi_key = canary",
        "[providers.a]\nkind = \"demo\"\napi_key = \"canary",
        "[providers.a]\nkind = \"demo\"\napi_key = \"can\\u0000ary\"",
        "[providers.a]\nkind = \"demo\"\nbase_url = \"canary\"",
        "[providers.a]\nkind = \"demo\"\nproxy = \"http://user:canary@host:port\"",
        "[providers.a]\nkind = \"demo\"\nheaders = { x-key = \"canary\\n\" }",
        "[keys.a]\nhash = \"canary\"",
        "[keys.a]\nsecret = { value = \"canary\" }",
    ];
    for text in misplaced {
        let shown = complaints(text);
        assert!(!shown.is_empty() && !shown.contains("canary"), "{text}: {shown}");
    }
}

// === What is understood ===

#[test]
fn nothing_written_means_the_defaults() {
    let config = parse("").unwrap();
    assert_eq!(config, Config { hash: digest(""), ..Config::empty(config.source.clone()) });
    assert_eq!(config.hash, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_eq!(config.server.listen[0].to_string(), "127.0.0.1:4000");
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:4001");
    assert_eq!(config.store.url, StoreUrl::Sqlite("switchpoint.db".into()));
}

#[test]
fn every_written_value_arrives() {
    let text = r#"
[server]
listen = ["127.0.0.1:1", "[::1]:2"]
tls = { cert = "cert.pem", key = "/key.pem" }
max_body = 1024
body_budget = "512KiB"
drain = "2m"
[store]
url = "sqlite:state/a.db"
[providers.groq]
kind = "groq"
base_url = "https://api.example.com/v1"
headers = { X-Team = "search" }
timeouts = { connect = "250ms", total = "1h" }
[routes.fast]
targets = ["groq/meta/llama", { target = "groq/b" }]
attempts = 3
[keys.a]
hash = "sha256:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffFF"
"#;
    let config = Config::parse(text, Path::new("etc/switchpoint.toml"), KINDS).unwrap();
    let Tls { cert, key } = config.server.tls.unwrap();
    assert_eq!((cert.as_path(), key.as_path()), (Path::new("etc/cert.pem"), Path::new("/key.pem")));
    assert_eq!(config.server.listen.len(), 2);
    assert_eq!((config.server.max_body, config.server.body_budget), (1024, 512 << 10));
    assert_eq!(config.server.drain, Duration::from_mins(2));
    assert_eq!(config.store.url, StoreUrl::Sqlite("state/a.db".into()), "not beside the config");
    let provider = &config.providers["groq"];
    assert_eq!(provider.base_url.as_deref(), Some("https://api.example.com/v1"));
    assert_eq!(provider.headers["x-team"].expose(), "search");
    assert_eq!(provider.timeouts.connect, Some(Duration::from_millis(250)));
    assert_eq!(provider.timeouts.total, Some(Duration::from_hours(1)));
    let route = &config.routes["fast"];
    let target = |model: &str| Target {
        provider: "groq".to_owned(),
        model: model.to_owned(),
        ..Target::default()
    };
    assert_eq!(route.targets, [target("meta/llama"), target("b")]);
    assert_eq!(route.attempts, Some(3));
    assert_eq!(config.keys["a"].hash, Some([255; 32]));
    assert_eq!(config.keys["a"].routes, None);
}

#[test]
fn credentials_of_a_cloud_are_whole_or_refused() {
    let text = r#"
[providers.a]
kind = "bedrock"
access_key_id = "AKID"
profile = "work"
[providers.b]
kind = "bedrock"
session_token = "x"
[providers.c]
kind = "vertex"
location = "evil.example/"
[providers.e]
kind = "vertex"
credentials = '{"private_key": "canary"}'
"#;
    assert_eq!(
        complaints_beside_sound(text),
        r"7: providers.a: `access_key_id` and `secret_access_key` belong together; write both
7: providers.a: `access_key_id` and `profile` are both written; keep one
11: providers.b: `session_token` belongs to an `access_key_id`; write both
14: providers.c: `location` may hold small letters, digits and - only
19: providers.e.credentials: holds the account itself; put that into a file and write its path
"
    );
    let sound = format!(
        "{SOUND}[providers.d]\nkind = \"bedrock\"\nregion = \"eu-west-1\"\n\
         access_key_id = \"AKID\"\nsecret_access_key = \"canary\"\n"
    );
    let config = parse(&sound).unwrap();
    assert!(config.warnings[0].path.ends_with("secret_access_key") && config.warnings.len() == 1);
    let keys: Vec<_> = config.providers["d"].cloud.written().map(|(key, _)| key).collect();
    assert_eq!(keys, ["region", "access_key_id", "secret_access_key"]);
    assert!(!format!("{config:?}").contains("canary"));
}
