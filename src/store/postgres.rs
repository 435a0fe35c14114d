//! A connection to Postgres that its thread waits for, never longer than the database may be silent.

use std::collections::HashMap;
use std::error::Error;
use std::future::poll_fn;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use tokio::runtime::Runtime;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{AsyncMessage, Client, Config, Connection, Socket, Statement};

use super::Failure;
use super::database::{Cell, Fault, Value};
use super::secure::{self, Secure};
use crate::net::tls;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(3);
/// How long one statement may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Prepared statements of one connection; reports have many forms.
const PREPARED: usize = 256;

pub(super) struct Remote {
    client: Client,
    prepared: HashMap<Box<str>, Statement>,
    /// What drives the connection while a statement is waited for.
    runtime: Runtime,
}

/// Where the server is, and whom we take for it.
#[derive(Clone)]
pub(super) struct Address {
    config: Config,
    secure: Secure,
}

// === impl Address ===

impl Address {
    /// Reads an address as libpq does: `sslmode` and `sslrootcert` say whether the connection is
    /// encrypted, and whether it is looked at who answers. Nothing of it is repeated, for it may
    /// hold a password.
    pub(super) fn read(url: &str) -> Result<Self, Failure> {
        let (place, settings) = url.split_once('?').unwrap_or((url, ""));
        let (mut checks, mut authority, mut rest) = (false, None, Vec::new());
        for setting in settings.split('&').filter(|setting| !setting.is_empty()) {
            match setting.split_once('=') {
                Some(("sslmode", "verify-ca" | "verify-full")) => {
                    checks = true;
                    rest.push("sslmode=require");
                }
                Some(("sslrootcert", path)) => authority = Some(Path::new(path)),
                _ => rest.push(setting),
            }
        }
        let read = format!("{place}?{}", rest.join("&")).parse::<Config>();
        let mut config = read.map_err(|error| Failure::from(Fault::from(error)))?;
        config.application_name("switchpoint");
        config.connect_timeout(CONNECT);
        // Who has gone without a word is noticed.
        config.keepalives_idle(Duration::from_secs(10)).keepalives_interval(Duration::from_secs(5));
        config.keepalives_retries(2).tcp_user_timeout(PATIENCE);
        let connector = match (checks, authority) {
            (false, None) => tls::connector_to_anyone(),
            (_, authority) => tls::connector(authority),
        };
        let connector = connector.map_err(|error| Failure::new(format!("sslrootcert: {error}")))?;
        Ok(Self { config, secure: Secure(connector) })
    }

    /// A connection, and what must be driven for it.
    pub(super) async fn open(&self) -> Result<(Client, Connection<Socket, secure::Stream>), Fault> {
        let opened = tokio::time::timeout(CONNECT, self.config.connect(self.secure.clone())).await;
        opened.map_err(|_| Fault::Silent)?.map_err(|error| self.hush(error))
    }

    /// A server that refuses us may repeat what it was shown.
    fn hush(&self, error: tokio_postgres::Error) -> Fault {
        let code = error.code().map(|code| code.code().into());
        let password = self.config.get_password().and_then(|it| str::from_utf8(it).ok());
        let (fault, password) = (Fault::from(error), password.unwrap_or_default());
        let told = fault.told();
        match code {
            Some(code) if !password.is_empty() && told.contains(password) => {
                Fault::Refused { code, told: told.replace(password, "***") }
            }
            _ => fault,
        }
    }

    /// Calls `ring` whenever somebody notifies this channel, until the connection is gone.
    pub(super) async fn listen(&self, channel: &str, ring: &impl Fn()) -> Result<(), Fault> {
        let (client, mut connection) = self.open().await?;
        let listen = format!("LISTEN {channel}");
        let mut asked = std::pin::pin!(client.batch_execute(&listen));
        let mut is_asked = false;
        loop {
            let told = poll_fn(|context| match refusal(asked.as_mut(), &mut is_asked, context) {
                Some(error) => Poll::Ready(Some(Err(error))),
                None => connection.poll_message(context),
            });
            match told.await {
                Some(Ok(AsyncMessage::Notification(_))) => ring(),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(()),
            }
        }
    }

    pub(super) fn secure(&self) -> Secure {
        self.secure.clone()
    }
}

// === impl Remote ===

impl Remote {
    pub(super) fn connect(address: &Address) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(super::no_thread)?;
        let (client, connection) = runtime.block_on(address.open())?;
        runtime.spawn(async move {
            // The statement that is waited for tells the same.
            let _ = connection.await;
        });
        let mut remote = Self { client, prepared: HashMap::new(), runtime };
        // Who is stopped in the middle of a transaction must not keep others from its rows.
        let silent = format!("SET idle_in_transaction_session_timeout = {}", PATIENCE.as_millis());
        remote.batch(&silent)?;
        Ok(remote)
    }

    pub(super) fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, Fault> {
        let statement = self.prepared(sql)?;
        self.run(self.client.execute(&statement, &parameters(values)))
    }

    pub(super) fn query(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
    ) -> Result<Vec<tokio_postgres::Row>, Fault> {
        let statement = self.prepared(sql)?;
        self.run(self.client.query(&statement, &parameters(values)))
    }

    pub(super) fn batch(&mut self, sql: &str) -> Result<(), Fault> {
        self.run(self.client.batch_execute(sql))
    }

    fn prepared(&mut self, sql: &str) -> Result<Statement, Fault> {
        if let Some(statement) = self.prepared.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.run(self.client.prepare(sql))?;
        if self.prepared.len() >= PREPARED {
            self.prepared.clear();
        }
        self.prepared.insert(sql.into(), statement.clone());
        Ok(statement)
    }

    fn run<T>(
        &self,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Fault> {
        let bounded = async { tokio::time::timeout(PATIENCE, work).await };
        Ok(self.runtime.block_on(bounded).map_err(|_| Fault::Silent)??)
    }
}

/// Why a channel cannot be listened to, when that is found out.
fn refusal<Fault>(
    asked: Pin<&mut impl Future<Output = Result<(), Fault>>>,
    is_asked: &mut bool,
    context: &mut Context<'_>,
) -> Option<Fault> {
    if *is_asked {
        return None;
    }
    let Poll::Ready(answer) = asked.poll(context) else { return None };
    *is_asked = true;
    answer.err()
}

fn parameters<'a>(values: &'a [Value<'a>]) -> Vec<&'a (dyn ToSql + Sync)> {
    values.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}

impl ToSql for Value<'_> {
    /// As the type that the statement asks for.
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Self::Null => return Ok(IsNull::Yes),
            Self::Integer(number) if *kind == Type::INT8 => out.put_i64(*number),
            Self::Integer(number) if *kind == Type::INT4 => out.put_i32((*number).try_into()?),
            Self::Integer(number) if *kind == Type::INT2 => out.put_i16((*number).try_into()?),
            Self::Integer(number) if *kind == Type::BOOL => out.put_u8((*number != 0).into()),
            // Here no text may hold a zero.
            Self::Text(text) if <&str as ToSql>::accepts(kind) => {
                out.put_slice(text.replace('\0', "\u{fffd}").as_bytes());
            }
            Self::Bytes(bytes) if *kind == Type::BYTEA => out.put_slice(bytes),
            Self::Integer(_) | Self::Text(_) | Self::Bytes(_) => {
                return Err(format!("is no {kind}").into());
            }
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Cell {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(match *kind {
            Type::INT8 => Self::Integer(i64::from_sql(kind, raw)?),
            Type::INT4 => Self::Integer(i32::from_sql(kind, raw)?.into()),
            Type::INT2 => Self::Integer(i16::from_sql(kind, raw)?.into()),
            Type::BOOL => Self::Integer(bool::from_sql(kind, raw)?.into()),
            Type::BYTEA => Self::Bytes(raw.to_owned()),
            _ => Self::Text(String::from_sql(kind, raw)?),
        })
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self::Null)
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}
