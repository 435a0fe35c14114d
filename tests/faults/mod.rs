//! Every fault that an upstream can have, met by every kind of client, whole and streamed: who is
//! asked how often, what the client sees, how long it takes and what is recorded.

mod seen;
mod table;
mod wire;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio::time::Instant;

use self::seen::{Client, OWN_WORDS, Seen};
use self::table::{Form, Row, Setting, Then, rows};
use self::wire::{Wire, text};
use crate::support::client::post;
use crate::support::gateway::{KEY, route};
use crate::support::{Gateway, Upstream};

const LIMITS: &str = r#"timeouts = { connect = "1500ms", headers = "1500ms", first_token = "1500ms", idle = "1500ms", total = "20s" }"#;

/// A limit, a second, and time for a machine that has much else to do.
const LONGEST: Duration = Duration::from_millis(1500 + 1000 + 5000);

/// So many calls at once.
const AT_ONCE: usize = 16;

/// One call of the matrix, with a faulty upstream of its own, so that no other one's health counts.
struct Cell {
    /// Its route; its model at B, too.
    name: String,
    row: usize,
    client: Client,
    stream: bool,
    /// A speaks its client's language.
    verbatim: bool,
    faulty: Upstream,
}

/// What came of one.
struct Found {
    id: String,
    provider: Option<String>,
    seen: Result<Seen, String>,
    took: Duration,
    shown: String,
}

#[tokio::test]
async fn whatever_befalls_a_server_of_openais_api_the_right_thing_follows() {
    run(Wire::Chat).await;
}

#[tokio::test]
async fn whatever_befalls_a_server_of_anthropics_api_the_right_thing_follows() {
    run(Wire::Messages).await;
}

async fn run(wire: Wire) {
    let rows = rows(wire);
    let cells = cells(wire, &rows).await;
    // Bound and never listening: nobody else can get this port, and whoever connects is refused.
    let nobody = TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let refusing = nobody.local_addr().unwrap().to_string();
    let healthy =
        Upstream::answering(move |request| wire.healthy(request.variant == "stream")).await;
    let mut sections = wire.provider("b", &healthy.address.to_string());
    for cell in &cells {
        let setting = rows[cell.row].setting;
        let faulty = cell.faulty.address.to_string();
        let address = if setting == Setting::Nobody { &refusing } else { &faulty };
        sections.push_str(&wire.provider(&provider(&cell.name), address));
        sections.push_str(&routed(&cell.name, setting));
    }
    let gateway = Gateway::start("", &sections).await;
    let found: Vec<Found> =
        stream::iter(&cells).map(|cell| call(&gateway, cell)).buffered(AT_ONCE).collect().await;
    let records = gateway.recorded(cells.len()).await;
    assert_eq!(records.len(), cells.len(), "one record for each call");
    let records: HashMap<_, _> =
        records.iter().map(|record| (record["id"].as_str().unwrap(), record)).collect();
    let mut asked: HashMap<String, usize> = HashMap::new();
    for request in healthy.requests() {
        *asked.entry(request.model).or_default() += 1;
    }
    let mut complaints = Vec::new();
    for (cell, found) in cells.iter().zip(&found) {
        let requests = (cell.faulty.requests().len(), asked.get(&cell.name).copied().unwrap_or(0));
        let wrong = check(&rows[cell.row], cell, found, requests, records[found.id.as_str()]);
        complaints.extend(wrong.into_iter().map(|wrong| format!("{}: {wrong}", cell.name)));
    }
    assert!(complaints.is_empty(), "{} wrong:\n{}", complaints.len(), complaints.join("\n"));
    println!("{wire:?}: {} faults, {} calls", rows.len(), cells.len());
}

async fn cells(wire: Wire, rows: &[Row]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for (place, row) in rows.iter().enumerate() {
        let forms: &[bool] = match row.form {
            Form::Both => &[false, true],
            Form::Whole => &[false],
            Form::Stream => &[true],
        };
        for (client, stream) in
            Client::ALL.iter().flat_map(|client| forms.iter().map(|form| (*client, *form)))
        {
            let form = if stream { "stream" } else { "whole" };
            let name = format!("{}-{client:?}-{form}", row.name).to_lowercase();
            let faulty = Upstream::start([("m", [row.script.clone()])]).await;
            let verbatim = client.speaks(wire);
            cells.push(Cell { name, row: place, client, stream, verbatim, faulty });
        }
    }
    cells
}

/// The name of a cell's faulty provider.
fn provider(name: &str) -> String {
    format!("a-{name}")
}

/// The sections of a cell's route.
fn routed(name: &str, setting: Setting) -> String {
    let [a, b] = [format!("{}/m", provider(name)), format!("b/{name}")];
    let (targets, more, windows) = match setting {
        Setting::Plain | Setting::Nobody => (vec![&*a, &b], String::new(), None),
        Setting::Windows(one, other) => (vec![&*a, &b], String::new(), Some((one, other))),
        Setting::Fallback(kind, one, other) => {
            let more = format!("\nfallbacks = {{ {kind} = [\"{b}\"] }}");
            (vec![&*a], more, Some((one, other)))
        }
    };
    let mut text = route(name, &targets, &format!("{LIMITS}{more}"));
    if let Some((one, other)) = windows {
        for (target, window) in [(&a, one), (&b, other)] {
            let _ = writeln!(text, "[models.\"{target}\"]\ncontext = {window}");
        }
    }
    text
}

async fn call(gateway: &Gateway, cell: &Cell) -> Found {
    let (path, body) = cell.client.asks(&cell.name, cell.stream);
    let started = Instant::now();
    let answer = post(gateway.address, &path, KEY, body).await;
    Found {
        took: started.elapsed(),
        id: answer.header("x-request-id").unwrap_or_default().to_owned(),
        provider: answer.header("x-switchpoint-provider").map(str::to_owned),
        seen: cell.client.reads(&answer),
        shown: String::from_utf8_lossy(&answer.body).into_owned(),
    }
}

/// Everything that is not as it must be.
fn check(
    row: &Row,
    cell: &Cell,
    found: &Found,
    requests: (usize, usize),
    record: &Value,
) -> Vec<String> {
    let faulty = provider(&cell.name);
    let whole = |status, text| Seen { status, text, whole: true, error: None, starts: 1 };
    let refused = |status, code: &str| Seen {
        status,
        error: Some(code.to_owned()),
        starts: 1,
        ..Seen::default()
    };
    let (seen, asked, by, outcome) = match row.then {
        Then::Next(..) => (whole(200, text(2)), (1, 1), "b", "ok"),
        Then::Own(tokens) => (whole(200, text(tokens)), (1, 0), &*faulty, "ok"),
        Then::Final(status, code) => (refused(status, code), (1, 0), &*faulty, "refused"),
        Then::Broken(tokens, code, outcome) => {
            // Who speaks its client's language has said so itself.
            let code = if code == "upstream_error" && cell.verbatim { OWN_WORDS } else { code };
            let seen = Seen { text: text(tokens), ..refused(200, code) };
            (seen, (1, 0), &*faulty, outcome)
        }
    };
    let asked = if row.setting == Setting::Nobody { (0, asked.1) } else { asked };
    let mut wrong = Vec::new();
    let mut compare = |what: &str, is: String, must: String| {
        if is != must {
            wrong.push(format!("{what} is {is} and must be {must}"));
        }
    };
    let shown: String = found.shown.chars().take(600).collect();
    compare(
        "what the client sees",
        format!("{:?}", found.seen),
        format!("{:?}", Ok::<_, String>(seen)),
    );
    compare("requests at A and B", format!("{requests:?}"), format!("{asked:?}"));
    compare("outcome", record["outcome"].to_string(), json!(outcome).to_string());
    compare("provider of the record", record["provider"].to_string(), json!(by).to_string());
    if !matches!(row.then, Then::Final(..)) {
        compare("provider named", format!("{:?}", found.provider), format!("{:?}", Some(by)));
    }
    let failed = match row.then {
        Then::Next(outcome, status) => vec![(faulty.as_str(), outcome, u64::from(status))],
        _ => Vec::new(),
    };
    let children: Vec<_> = record["failed"].as_array().into_iter().flatten().collect();
    let children: Vec<_> = children
        .iter()
        .map(|child| {
            let text = |name: &str| child[name].as_str().unwrap_or_default();
            (text("provider"), text("outcome"), child["status"].as_u64().unwrap_or(999))
        })
        .collect();
    compare("failed attempts", format!("{children:?}"), format!("{failed:?}"));
    compare("attempts", record["attempts"].to_string(), (failed.len() + 1).to_string());
    if found.took > LONGEST {
        wrong.push(format!("it took {:?}", found.took));
    }
    if !wrong.is_empty() {
        wrong.push(format!("the client was told {shown:?}"));
    }
    wrong
}
