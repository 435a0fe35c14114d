//! Starts the gateway and nginx in front of the upstream, each with a temporary configuration.

use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, TcpListener},
    process::{Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{process::Running, subjects::Subject, traffic::MODELS};

/// A provider that speaks OpenAI's API, and one that speaks Anthropic's, so that every call is
/// translated. Their upstream is to be put in.
pub(crate) const OPENAI: &str = "kind = \"openai-compatible\"\nbase_url = \"http://{upstream}/v1\"";
pub(crate) const ANTHROPIC: &str = "kind = \"anthropic\"\nbase_url = \"http://{upstream}\"";

/// What gateways differ in.
pub(crate) struct Setting<'a> {
    pub(crate) store: &'a str,
    pub(crate) provider: &'a str,
    /// The rest of the `[keys.bench]` table, and whatever tables follow it.
    pub(crate) terms: &'a str,
}

/// The gateway as this run built it; an error says why it did not come up.
pub(crate) async fn start_gateway(upstream: &str) -> io::Result<Subject> {
    start_gateway_to("gateway", OPENAI, upstream).await
}

/// The same with another dialect behind it.
pub(crate) async fn start_translating(upstream: &str) -> io::Result<Subject> {
    start_gateway_to("translating", ANTHROPIC, upstream).await
}

async fn start_gateway_to(name: &str, provider: &str, upstream: &str) -> io::Result<Subject> {
    let setting = Setting { store: "memory:", provider, terms: "" };
    let program = Command::new(env!("CARGO_BIN_EXE_switchpoint"));
    start_by(name, program, &setting.before(upstream)).await
}

impl Setting<'_> {
    /// The configuration but for the doors.
    pub(crate) fn before(&self, upstream: &str) -> String {
        let Self { store, provider, terms } = self;
        let provider = provider.replace("{upstream}", upstream);
        let routes = MODELS
            .map(|(model, _)| format!("[routes.{model}]\ntargets = [\"bench/{model}\"]\n"))
            .concat();
        format!(
            r#"[store]
url = "{store}"
[providers.bench]
{provider}
api_keys = ["bench-upstream-key"]
{routes}[keys.bench]
secret = "sk-bench"
{terms}"#
        )
    }
}

/// The gateway by a command that starts it when `serve` and the rest is added.
pub(crate) async fn start_by(
    name: &str,
    mut command: Command,
    configuration: &str,
) -> io::Result<Subject> {
    let (port, admin_port) = (free_port()?, free_port()?);
    let doors = format!(
        r#"[server]
listen = "127.0.0.1:{port}"
[admin]
listen = "127.0.0.1:{admin_port}"
key = "admin-bench-key"
"#
    );
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("switchpoint.toml");
    fs::write(&file, doors + configuration)?;
    command.arg("serve").arg("--config").arg(file).current_dir(folder.path());
    start(name, command, folder, port).await
}

/// The nginx on the path, as a plain unbuffered proxy with a worker per core.
pub(crate) async fn start_nginx(upstream: &str) -> io::Result<Subject> {
    let port = free_port()?;
    let folder = tempfile::tempdir()?;
    let configuration = format!(
        "daemon off;
worker_processes auto;
pid nginx.pid;
error_log stderr crit;
events {{ worker_connections 16384; }}
http {{
    access_log access.log;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    client_max_body_size 0;
    client_body_buffer_size 2m;
    keepalive_requests 1000000000;
    tcp_nodelay on;
    upstream provider {{ server {upstream}; keepalive 512; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096 reuseport;
        location = /healthz {{ return 200; }}
        location / {{
            proxy_pass http://provider;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_buffering off;
            proxy_request_buffering off;
            proxy_read_timeout 600s;
        }}
    }}
}}
"
    );
    let file = folder.path().join("nginx.conf");
    fs::write(&file, configuration)?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder.path()).arg("-c").arg(file);
    start("nginx", command, folder, port).await
}

/// Starts a server and waits until it answers; its log goes to a file, as in production.
async fn start(
    name: &str,
    mut command: Command,
    folder: TempDir,
    port: u16,
) -> io::Result<Subject> {
    command.stdin(Stdio::null()).stdout(File::create(folder.path().join("stdout.log"))?);
    let mut running = Running::start(&mut command)?.keeping(folder);
    // Under valgrind it takes its time.
    for _ in 0..600 {
        if is_healthy(port).await.unwrap_or(false) {
            return Ok(Subject::started(name, running, &format!("http://127.0.0.1:{port}/v1")));
        }
        if running.poll_ended() {
            return Err(io::Error::other("the process ended at once"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(io::Error::other("it did not answer /healthz in time"))
}

async fn is_healthy(port: u16) -> io::Result<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let request = b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await?;
    let mut status = [0; 12];
    stream.read_exact(&mut status).await?;
    Ok(&status == b"HTTP/1.1 200")
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
