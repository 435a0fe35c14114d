//! A desk that says what it is told to, over a real socket.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::config::CloudKeys;
use crate::net::tasks::Tasks;

type Script = dyn Fn(&str) -> (u16, String) + Send + Sync;

/// A server of one answer after another, and all that was said to it.
pub(super) struct Stand {
    pub(super) url: String,
    heard: Arc<Mutex<Vec<String>>>,
}

/// What a signer is made from, owned.
pub(super) struct Scene {
    pub(super) section: config::Provider,
    pub(super) environment: CloudEnvironment,
    client: Client,
}

// === impl Stand ===

impl Stand {
    pub(super) async fn open(
        script: impl Fn(&str) -> (u16, String) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (script, into): (Arc<Script>, _) = (Arc::new(script), Arc::clone(&heard));
        let tasks = Tasks::default();
        tasks.clone().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tasks.spawn(serve(stream, Arc::clone(&script), Arc::clone(&into)));
            }
        });
        Self { url, heard }
    }

    pub(super) fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, script: Arc<Script>, heard: Arc<Mutex<Vec<String>>>) {
    while let Some(request) = read(&mut stream).await {
        heard.lock().unwrap().push(request.clone());
        let (status, body) =
            if request.starts_with("CONNECT ") { (200, String::new()) } else { script(&request) };
        // A tunnel has no body, not even an empty one.
        let length = if request.starts_with("CONNECT ") {
            String::new()
        } else {
            format!("content-length: {}\r\n", body.len())
        };
        let answer = format!("HTTP/1.1 {status} X\r\n{length}\r\n{body}");
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

async fn read(stream: &mut TcpStream) -> Option<String> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(text).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.ok()?;
    Some(head + std::str::from_utf8(&body).unwrap())
}

// === impl Scene ===

impl Scene {
    pub(super) fn new(cloud: CloudKeys, environment: CloudEnvironment) -> Self {
        let section = config::Provider { cloud, ..config::Provider::default() };
        Self { section, environment, client: Client::new(1) }
    }

    pub(super) fn setup(&self) -> Setup<'_> {
        Setup { section: &self.section, environment: &self.environment, client: &self.client }
    }
}

/// The headers that `signer` adds to some request, or why it cannot.
pub(super) async fn authorize(signer: &Signer) -> Result<Vec<(String, String)>, AuthFault> {
    let body = Payload::default();
    let unsigned =
        Unsigned { method: "POST", host: "api.test", path: "/x", headers: &[], body: &body };
    let headers = signer.authorize(&unsigned).await?;
    assert!(
        headers
            .iter()
            .filter(|(name, _)| name != "x-amz-date")
            .all(|(_, value)| { value.is_sensitive() && !format!("{value:?}").contains("Bearer") })
    );
    let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
    Ok(headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect())
}

/// The token that `signer` shows.
pub(super) async fn token(signer: &Signer) -> Result<String, AuthFault> {
    let headers = authorize(signer).await?;
    let found = headers.into_iter().find(|(name, _)| name == "authorization");
    Ok(found.unwrap().1)
}

#[tokio::test]
async fn tokens_are_fetched_through_the_providers_proxy_and_identities_of_the_machine_are_not() {
    let proxy = Stand::open(|_| (200, r#"{"access_token":"t1","expires_in":60}"#.to_owned())).await;
    let keys = CloudKeys {
        tenant_id: Some("tenant".to_owned()),
        client_id: Some("app".to_owned()),
        client_secret: Some(Secret::new("canary")),
        ..CloudKeys::default()
    };
    let mut environment = CloudEnvironment::default();
    environment.azure.authority_host = Some("http://login.test".to_owned());
    let mut scene = Scene::new(keys, environment);
    scene.section.proxy = Some(proxy.url.clone());
    let signer = Signer::entra(scene.setup()).unwrap();
    assert_eq!(token(&signer).await.unwrap(), "Bearer t1");
    let heard = proxy.heard();
    assert!(heard[0].starts_with("CONNECT login.test:80 "), "{heard:?}");
    assert!(heard[1].starts_with("POST /tenant/oauth2/v2.0/token "), "{heard:?}");

    let machine = Stand::open(|_| (200, r#"{"access_token":"t2"}"#.to_owned())).await;
    let mut environment = CloudEnvironment::default();
    environment.azure.metadata_endpoint = Some(machine.url.clone());
    let mut scene = Scene::new(CloudKeys::default(), environment);
    scene.section.proxy = Some(proxy.url.clone());
    let signer = Signer::entra(scene.setup()).unwrap();
    assert_eq!(token(&signer).await.unwrap(), "Bearer t2");
    assert_eq!((machine.heard().len(), proxy.heard().len()), (1, 2));
}

#[test]
fn a_key_of_another_kind_is_refused_and_says_whose_it_is() {
    let cloud = CloudKeys { region: Some("eu-west-1".to_owned()), ..CloudKeys::default() };
    let section = config::Provider { cloud, ..config::Provider::default() };
    assert_eq!(refuse_foreign_keys("bedrock", &section), Ok(()));
    assert_eq!(
        refuse_foreign_keys("groq", &section).unwrap_err(),
        "`region` is a key of the kind `bedrock`, and this is `groq`"
    );
}

/// What each desk is told, and how it refuses.
mod desks;
