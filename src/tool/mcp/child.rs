//! A server that is a child process: in a group of its own, with an environment of what was
//! allowed, and ended so that nobody of its group stays.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use memchr::memmem;
use rmcp::RoleClient;
use rmcp::model::{ClientJsonRpcMessage, RequestId, ServerJsonRpcMessage};
use rmcp::transport::Transport;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncWriteExt;
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::Meters;
use super::answer::{not_mcp, too_long};
use super::ear::Calls;
use super::lines::{Line, Lines};
use crate::config::Secret;
use crate::tool::egress::telling;
use crate::tool::kept::Net;
use crate::tool::text::censor_all;

/// How long it may take to end when its input is closed, and again when it is told to.
const GRACE: Duration = Duration::from_secs(2);
/// What is read of a line that it complains with.
const LONGEST_COMPLAINT: usize = 4 * 1024;

/// The command by which this program becomes another one that does not outlive it.
static LAUNCHER: OnceLock<Vec<String>> = OnceLock::new();

/// How it is started.
#[derive(Debug)]
pub(super) struct Recipe {
    pub(super) server: Arc<str>,
    pub(super) command: Vec<String>,
    pub(super) environment: BTreeMap<String, Secret>,
    pub(super) net: Net,
    /// Where it starts, if not where we have.
    pub(super) folder: Option<PathBuf>,
    /// Bytes of one message.
    pub(super) longest: usize,
}

/// The messages of one child.
pub(super) struct Pipe {
    server: Arc<str>,
    calls: Arc<Calls>,
    /// What was read and is not given away yet.
    read: VecDeque<ServerJsonRpcMessage>,
    /// It has said too much to one of those who wait, and nobody knows to whom.
    has_lost: bool,
    answers: Lines<ChildStdout>,
    /// Gone when it was closed.
    complaints: Option<Lines<ChildStderr>>,
    questions: Arc<Mutex<Option<ChildStdin>>>,
    /// What must be seen in nothing that it says.
    secrets: Vec<String>,
    group: Group,
}

/// A process and all that it has started. Dropped, all of it is killed.
struct Group {
    leader: tokio::process::Child,
    id: Option<Pid>,
    server: Arc<str>,
    meters: Meters,
}

/// Has children started by `command`, in front of their own: it sees to it that they end with this
/// process, however that ends.
pub fn launch_by(command: Vec<String>) {
    let _ = LAUNCHER.set(command);
}

// === impl Recipe ===

impl Recipe {
    /// Starts it, on the runtime of the caller, with the secrets of the moment. Those that change
    /// later are another environment, and with the next config there is another child.
    pub(super) async fn start(&self, meters: &Meters, calls: &Arc<Calls>) -> io::Result<Pipe> {
        let mut environment = self.environment.clone();
        for secret in environment.values_mut() {
            if let Some(now) = self.net.renewed(secret, None).await {
                *secret = now;
            }
        }
        let mut words = LAUNCHER.get().into_iter().flatten().chain(&self.command);
        let program = words.next().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command.args(words).env_clear();
        command.envs(environment.iter().map(|(name, value)| (name, value.expose())));
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        let mut leader = command.spawn()?;
        let (questions, answers) = (leader.stdin.take(), leader.stdout.take());
        let complaints = leader.stderr.take();
        let group = Group::new(leader, &self.server, meters);
        let answers = answers.ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Pipe {
            server: Arc::clone(&self.server),
            calls: Arc::clone(calls),
            read: VecDeque::new(),
            has_lost: false,
            answers: Lines::new(answers, self.longest),
            complaints: complaints.map(|it| Lines::new(it, LONGEST_COMPLAINT)),
            questions: Arc::new(Mutex::new(questions)),
            secrets: telling(environment.values()),
            group,
        })
    }
}

// === impl Pipe ===

impl Pipe {
    /// Notes what it complains of.
    fn complain(&self, line: Line) {
        let (Line::Whole(line) | Line::TooLong(line, _)) = line;
        let said = self.without_secrets(line);
        let said = &*String::from_utf8_lossy(&said);
        let server = &*self.server;
        tracing::debug!(server, said, "an MCP server says");
    }

    /// What was read is heard before the answer behind it.
    async fn heed(&self) {
        if let Some(ServerJsonRpcMessage::Notification(said)) = self.read.front() {
            self.calls.hear(None, &super::answer::as_value(said)).await;
        }
    }

    fn without_secrets(&self, line: impl Into<Bytes>) -> Bytes {
        censor_all(line.into(), self.secrets.iter().map(String::as_str))
    }

    fn understand(&mut self, line: Line) {
        let server = &*self.server;
        let answer = match line {
            Line::Whole(line) => {
                let line = self.without_secrets(line);
                let message = serde_json::from_slice(&line);
                message.ok().or_else(|| {
                    // Some print there what is for people.
                    tracing::warn!(server, "an MCP server has said something that is not MCP");
                    let is_meant = memmem::find(&line, b"\"jsonrpc\"").is_some();
                    is_meant.then(|| id_in(&line, &line)).flatten().map(not_mcp)
                })
            }
            Line::TooLong(begin, end) => {
                tracing::warn!(server, "an MCP server has said more at once than it may");
                let id = id_in(&begin, &end);
                // What has a method answers nobody.
                self.has_lost = id.is_none() && memmem::find(&begin, b"\"method\"").is_none();
                id.map(too_long)
            }
        };
        self.read.extend(answer);
    }

    /// Whoever may have been meant is told, and waits no longer.
    async fn give_up(&mut self) {
        let waiting = self.calls.waiting().await;
        self.has_lost = false;
        self.read.extend(waiting.into_iter().map(too_long));
    }
}

impl Transport<RoleClient> for Pipe {
    type Error = io::Error;

    fn send(
        &mut self,
        item: ClientJsonRpcMessage,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let questions = Arc::clone(&self.questions);
        async move {
            let mut line = serde_json::to_vec(&item)?;
            line.push(b'\n');
            let mut questions = questions.lock().await;
            let questions = questions.as_mut().ok_or(io::ErrorKind::NotConnected)?;
            questions.write_all(&line).await?;
            questions.flush().await
        }
    }

    async fn receive(&mut self) -> Option<ServerJsonRpcMessage> {
        loop {
            if self.has_lost {
                self.give_up().await;
            }
            if !self.read.is_empty() {
                self.heed().await;
                return self.read.pop_front();
            }
            let complaint = async {
                match &mut self.complaints {
                    Some(complaints) => complaints.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                answer = self.answers.next() => {
                    self.understand(answer?);
                }
                complaint = complaint => match complaint {
                    Some(line) => self.complain(line),
                    None => self.complaints = None,
                },
            }
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        self.questions.lock().await.take();
        self.group.end().await;
        Ok(())
    }
}

/// The id of a message of which only the beginning and the end are known. Ours are numbers, and
/// everybody writes it at one of them.
fn id_in(begin: &[u8], end: &[u8]) -> Option<RequestId> {
    const FIRST: [&str; 2] = ["{\"jsonrpc\":\"2.0\",\"id\":", "{\"id\":"];
    let dense = |piece: &[u8]| {
        let text = String::from_utf8_lossy(piece).into_owned();
        text.replace(char::is_whitespace, "")
    };
    let (begin, end) = (dense(begin), dense(end));
    let first = FIRST.iter().find_map(|first| begin.strip_prefix(first));
    let digits = match first {
        Some(behind) => behind.split(',').next(),
        None => end.strip_suffix('}')?.rsplit_once("\"id\":").map(|(_, last)| last),
    };
    digits?.parse().ok().map(RequestId::Number)
}

// === impl Group ===

impl Group {
    fn new(leader: tokio::process::Child, server: &Arc<str>, meters: &Meters) -> Self {
        let id = leader.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        meters.children.with_label_values(&[&**server]).inc();
        Self { leader, id, server: Arc::clone(server), meters: meters.clone() }
    }

    /// Waits for it to end by itself, then tells it to, then kills it, and what it has started.
    async fn end(&mut self) {
        if timeout(GRACE, self.leader.wait()).await.is_err() {
            self.signal(Signal::TERM);
            let _ = timeout(GRACE, self.leader.wait()).await;
        }
        self.signal(Signal::KILL);
        let _ = self.leader.wait().await;
        self.id = None;
    }

    fn signal(&self, signal: Signal) {
        if let Some(id) = self.id {
            // Nobody may be left.
            let _ = kill_process_group(id, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        self.meters.children.with_label_values(&[&*self.server]).dec();
    }
}
