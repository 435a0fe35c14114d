//! A server whose answers a test writes, and which remembers what it was asked.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::net::tasks::Tasks;

/// One request as it came.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// In lower case.
    pub(super) head: String,
    pub(super) target: String,
    pub(super) body: String,
}

#[derive(Debug, Clone)]
pub(super) enum Say {
    /// Status, further headers, body.
    Answer(u16, &'static str, String),
    /// Nothing, ever.
    Hang,
    /// The end of the connection, without a word.
    Close,
}

pub(super) struct Server {
    pub(super) url: String,
    pub(super) asked: Arc<Mutex<Vec<Asked>>>,
}

// === impl Say ===

impl Say {
    pub(super) fn json(status: u16, body: impl std::fmt::Display) -> Self {
        let body = format!("{body}");
        Self::Answer(status, "content-type: application/json\r\n", body)
    }
}

// === impl Server ===

impl Server {
    /// Answers each request by its number and what it says.
    pub(super) async fn start(
        script: impl Fn(usize, &Asked) -> Say + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (log, script, tasks) = (Arc::clone(&asked), Arc::new(script), Tasks::default());
        let serving = tasks.clone();
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, script): (_, Arc<Script>) = (Arc::clone(&log), script.clone());
                serving.spawn(serve(stream, log, script));
            }
        });
        Self { url, asked }
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub(super) fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

type Script = dyn Fn(usize, &Asked) -> Say + Send + Sync;

async fn serve(stream: TcpStream, log: Arc<Mutex<Vec<Asked>>>, script: Arc<Script>) {
    let _ = answer(stream, &log, &*script).await;
}

async fn answer(
    mut stream: TcpStream,
    log: &Mutex<Vec<Asked>>,
    script: &Script,
) -> std::io::Result<()> {
    let mut read = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = read.windows(4).position(|it| it == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&read[..end]).into_owned();
        let length = head.to_ascii_lowercase();
        let length = length.split("content-length: ").nth(1).and_then(|it| it.lines().next());
        let length: usize = length.and_then(|it| it.trim().parse().ok()).unwrap_or(0);
        while read.len() < end + length {
            stream.read_buf(&mut read).await?;
        }
        let asked = Asked {
            target: head.split(' ').nth(1).unwrap_or_default().to_owned(),
            head: head.to_ascii_lowercase(),
            body: String::from_utf8_lossy(&read[end..end + length]).into_owned(),
        };
        read.drain(..end + length);
        let number = {
            let mut log = log.lock().unwrap();
            log.push(asked.clone());
            log.len()
        };
        match script(number, &asked) {
            Say::Answer(status, headers, body) => {
                let head = format!(
                    "HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\n\r\n",
                    body.len()
                );
                stream.write_all(head.as_bytes()).await?;
                stream.write_all(body.as_bytes()).await?;
            }
            Say::Hang => std::future::pending().await,
            Say::Close => return Ok(()),
        }
    }
}
