//! A schema of a test's own in the Postgres that `SWITCHPOINT_TEST_POSTGRES` names.

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::task::JoinSet;
use tokio_postgres::config::Host;
use tokio_postgres::{Client, NoTls};

pub(crate) struct Schema {
    server: String,
    pub(crate) name: String,
    connections: JoinSet<()>,
}

impl Schema {
    /// `None` where there is no such server.
    pub(crate) async fn new(name: &str) -> Option<Self> {
        let Some(server) = std::env::var_os("SWITCHPOINT_TEST_POSTGRES") else {
            println!("SWITCHPOINT_TEST_POSTGRES is not set: nothing was tried");
            return None;
        };
        let server = server.into_string().unwrap();
        let name = format!("{name}_{}", std::process::id());
        let make = format!("DROP SCHEMA IF EXISTS {name} CASCADE; CREATE SCHEMA {name}");
        let mut schema = Self { server, name, connections: JoinSet::new() };
        schema.client().await.batch_execute(&make).await.unwrap();
        Some(schema)
    }

    /// Host and port of the server.
    pub(crate) fn address(&self) -> (String, u16) {
        let parsed: tokio_postgres::Config = self.server.parse().unwrap();
        let Some(Host::Tcp(host)) = parsed.get_hosts().first() else {
            panic!("the server must have a host");
        };
        (host.clone(), parsed.get_ports().first().copied().unwrap_or(5432))
    }

    pub(crate) async fn client(&mut self) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.server, NoTls).await.unwrap();
        self.connections.spawn(async { drop(connection.await) });
        client
    }

    /// Where a gateway finds it: through this door, if there is one.
    pub(crate) fn url(&self, door: Option<SocketAddr>) -> String {
        let (head, tail) = self.server.split_once('@').unwrap();
        let (address, database) = tail.split_once('/').unwrap_or((tail, ""));
        let address = door.map_or_else(|| address.to_owned(), |door| door.to_string());
        format!("{head}@{address}/{database}?options=-csearch_path%3D{}", self.name)
    }

    /// An empty folder for the journal of the gateway of this name.
    pub(crate) fn journal(&self, gateway: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("switchpoint-{}-{gateway}", self.name));
        let _ = std::fs::remove_dir_all(&folder);
        folder
    }

    /// What one number a query gives.
    pub(crate) async fn number(&mut self, query: &str) -> u64 {
        let query = query.replace("{schema}", &self.name);
        let row = self.client().await.query_one(&query, &[]).await.unwrap();
        row.get::<_, i64>(0).try_into().unwrap()
    }
}
