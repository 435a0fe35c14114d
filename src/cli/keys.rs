//! Virtual keys by hand: through the admin API of a gateway that runs, else in the store itself.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Subcommand;
use serde_json::{Value, json};

use super::admin::{Address, Door, GREETING};
use super::{complain, complain_all, config_path, load, located, say};
use crate::config::{Config, Secret, StoreUrl};
use crate::error::Error;
use crate::gateway::directory::{Actor, Draft, Entry, Kind, PAGE, Page};
use crate::gateway::{Gateway, Snapshot};
use crate::net::client::Client;
use crate::store::Store;
use crate::telemetry::{Format, Log, Telemetry};

/// As whom the audit trail knows who works on the store itself.
const NAME: &str = "cli";

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Make a key and print its secret, this once.
    Create {
        /// What the key is to be called; else an id is made up.
        #[arg(long)]
        id: Option<String>,
        #[arg(long)]
        team: Option<String>,
        #[arg(long)]
        user: Option<String>,
        /// `owner`, `operator`, `viewer` or `team_admin`: makes it a key to the admin API.
        #[arg(long)]
        role: Option<String>,
        /// A date or a point in time.
        #[arg(long)]
        expires: Option<String>,
        /// All else that `[keys.NAME]` takes in the config, as a JSON object.
        #[arg(long, value_name = "JSON", default_value = "{}")]
        settings: String,
        #[command(flatten)]
        place: Address,
    },
    /// List keys, those of the config file among them.
    List {
        #[arg(long)]
        team: Option<String>,
        #[command(flatten)]
        place: Address,
    },
    /// Revoke a key for good.
    Revoke {
        id: String,
        #[command(flatten)]
        place: Address,
    },
    /// Give a key a new secret and print it, this once.
    Rotate {
        id: String,
        /// How long the old secret is taken still.
        #[arg(long, default_value = "24h")]
        overlap: String,
        #[command(flatten)]
        place: Address,
    },
}

/// Why nothing was done.
enum Failed {
    /// The exit code, once everything was said.
    Said(ExitCode),
    Because(String),
}

/// Who does it.
enum Desk {
    Api(Door),
    Store(Arc<Gateway>),
}

type Told = Result<Value, Failed>;

pub(super) fn run(command: KeysCommand) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(act(command)),
        Err(error) => Err(broken(error)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed::Said(code)) => code,
        Err(Failed::Because(message)) => {
            complain(&message);
            ExitCode::FAILURE
        }
    }
}

async fn act(command: KeysCommand) -> Result<(), Failed> {
    match command {
        KeysCommand::Create { id, team, user, role, expires, settings, place } => {
            let mut settings: Value = serde_json::from_str(&settings)
                .map_err(|error| Failed::Because(format!("--settings is not JSON: {error}")))?;
            let members = settings.as_object_mut();
            let members = members.ok_or_else(|| because("--settings is not a JSON object"))?;
            let named = [("team", team), ("user", user), ("role", role), ("expires", expires)];
            for (name, value) in named {
                members.extend(value.map(|value| (name.to_owned(), Value::from(value))));
            }
            let made = Box::pin(Desk::find(&place)).await?.create(id, settings).await?;
            show_secret(&made, &place);
        }
        KeysCommand::List { team, place } => {
            let entries = Box::pin(Desk::find(&place)).await?.list(team.as_deref()).await?;
            say(&if place.json { format!("{:#}", Value::from(entries)) } else { table(&entries) });
        }
        KeysCommand::Revoke { id, place } => {
            let entry = Box::pin(Desk::find(&place)).await?.revoke(&id).await?;
            say(&if place.json { format!("{entry:#}") } else { format!("{id} is revoked") });
        }
        KeysCommand::Rotate { id, overlap, place } => {
            let made = Box::pin(Desk::find(&place)).await?.rotate(&id, &overlap).await?;
            show_secret(&made, &place);
        }
    }
    Ok(())
}

/// The secret alone on standard output, so that a script can take it.
fn show_secret(made: &Value, place: &Address) {
    if place.json {
        say(&format!("{made:#}"));
        return;
    }
    complain(&format!("key {}; its secret is shown only now:", text(made, "id")));
    say(text(made, "secret"));
}

fn text<'a>(entry: &'a Value, name: &str) -> &'a str {
    entry[name].as_str().unwrap_or("-")
}

fn table(entries: &[Value]) -> String {
    let mut rows = vec![["ID", "TEAM", "USER", "ROLE", "EXPIRES", "FROM", "STATE"]];
    rows.extend(entries.iter().map(|entry| {
        let cell = |name| text(entry, name);
        let state = if entry["revoked_at"].is_null() { "live" } else { "revoked" };
        [
            cell("id"),
            cell("team"),
            cell("user"),
            cell("role"),
            cell("expires"),
            cell("source"),
            state,
        ]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..7).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &[&str; 7]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

// === impl Desk ===

impl Desk {
    async fn find(place: &Address) -> Result<Self, Failed> {
        if place.url().is_some() {
            return place.open().map(Self::Api).map_err(Failed::Because);
        }
        let key = place.key().map_err(Failed::Because)?;
        let path = config_path(place.config.clone());
        let config = load(path.as_deref()).map_err(|found| Failed::Said(complain_all(&found)))?;
        let own = config.admin.key.as_ref().map(|key| key.expose().to_owned());
        if let Some(key) = own.or(key) {
            let door = Door::open(&format!("http://{}", config.admin.listen), &key);
            let door = door.map_err(Failed::Because)?;
            let greeting = door.ask("GET", "/healthz", Vec::new());
            if let Ok(Ok((200, _))) = tokio::time::timeout(GREETING, greeting).await {
                return Ok(Self::Api(door));
            }
        }
        Self::store(config, path).await
    }

    /// The gateway that `serve` would run, but without doors.
    async fn store(config: Config, path: Option<PathBuf>) -> Result<Self, Failed> {
        if config.store.url == StoreUrl::Memory {
            return Err(because("the store is the memory of a gateway, and none answers"));
        }
        let client = Client::new(1);
        let snapshot = Snapshot::build(config, 1, (&client, Arc::default(), Arc::default()))
            .map_err(|found| Failed::Said(complain_all(&located(path.as_deref(), &found))))?;
        // The journal has one owner, who may be running.
        let settings = snapshot.config.store.clone();
        let store = Store::open_beside(&settings).map_err(broken)?;
        let log = Log::start(Format::Text, false, Box::new(io::sink())).map_err(broken)?;
        let gateway = Gateway::new(snapshot, client, store, Telemetry::new(log).map_err(broken)?);
        gateway.load_directory().await.map_err(broken)?;
        Ok(Self::Store(gateway))
    }

    async fn create(&self, id: Option<String>, settings: Value) -> Told {
        match self {
            Self::Api(_) => {
                let mut body = settings;
                if let (Some(id), Some(members)) = (id, body.as_object_mut()) {
                    members.insert("id".to_owned(), id.into());
                }
                self.done("POST", "/admin/keys", Some(&body)).await
            }
            Self::Store(gateway) => {
                let draft = Draft { id, settings, idempotency: None };
                let made = gateway.create_entry(&Actor::owner(NAME), Kind::Key, draft).await;
                let made = made.map_err(refused)?;
                let secret = made.secret.as_ref().map(Secret::expose);
                Ok(flat(&made.entry, secret))
            }
        }
    }

    async fn list(&self, team: Option<&str>) -> Result<Vec<Value>, Failed> {
        let (mut all, mut after) = (Vec::new(), None::<String>);
        loop {
            let (page, next) = match self {
                Self::Api(_) => {
                    let after = after.iter().map(|after| format!("&after={after}"));
                    let team = team.iter().map(|team| format!("&team={team}"));
                    let more: String = after.chain(team).collect();
                    let path = format!("/admin/keys?limit={PAGE}{more}");
                    let mut page = self.done("GET", &path, None).await?;
                    let next = page["next"].as_str().map(ToOwned::to_owned);
                    (page["data"].as_array_mut().map(std::mem::take).unwrap_or_default(), next)
                }
                Self::Store(gateway) => {
                    let page = Page { team, after: after.as_deref(), limit: PAGE };
                    let found = gateway.entries(&Actor::owner(NAME), Kind::Key, page);
                    let (entries, next) = found.map_err(refused)?;
                    (entries.iter().map(|entry| flat(entry, None)).collect(), next)
                }
            };
            all.extend(page);
            after = next;
            if after.is_none() {
                return Ok(all);
            }
        }
    }

    async fn revoke(&self, id: &str) -> Told {
        match self {
            Self::Api(_) => self.done("DELETE", &path_of(id)?, None).await,
            Self::Store(gateway) => {
                let entry = gateway.revoke_key(&Actor::owner(NAME), id).await;
                Ok(flat(&entry.map_err(refused)?, None))
            }
        }
    }

    async fn rotate(&self, id: &str, overlap: &str) -> Told {
        match self {
            Self::Api(_) => {
                let path = format!("{}/rotate", path_of(id)?);
                self.done("POST", &path, Some(&json!({"overlap": overlap}))).await
            }
            Self::Store(gateway) => {
                let overlap = crate::config::duration(overlap).map_err(Failed::Because)?;
                let made = gateway.rotate_key(&Actor::owner(NAME), id, overlap).await;
                let made = made.map_err(refused)?;
                Ok(flat(&made.entry, made.secret.as_ref().map(Secret::expose)))
            }
        }
    }

    /// Asks the admin API, and takes only yes for an answer.
    async fn done(&self, method: &str, path: &str, body: Option<&Value>) -> Told {
        let Self::Api(door) = self else { return Err(because("there is no address")) };
        door.done(method, path, body).await.map_err(Failed::Because)
    }
}

/// As the admin API shows it: settings beside the rest.
fn flat(entry: &Entry, secret: Option<&str>) -> Value {
    let mut shown = entry.settings.clone();
    let Value::Object(about) = json!(entry) else { return shown };
    if let Some(members) = shown.as_object_mut() {
        members.extend(about.into_iter().filter(|(name, _)| name != "settings"));
        members.extend(secret.map(|secret| ("secret".to_owned(), Value::from(secret))));
    }
    shown
}

fn path_of(id: &str) -> Result<String, Failed> {
    if crate::config::entry::is_name(id) {
        Ok(format!("/admin/keys/{id}"))
    } else {
        Err(Failed::Because(format!("{id:?} is not the id of a key")))
    }
}

fn because(message: &str) -> Failed {
    Failed::Because(message.to_owned())
}

fn refused(error: Error) -> Failed {
    Failed::Because(error.message.into_owned())
}

fn broken(error: impl std::fmt::Display) -> Failed {
    Failed::Because(error.to_string())
}
