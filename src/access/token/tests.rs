//! Whose tokens are taken, against an issuer on a real socket.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::HeaderValue;
use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaKeyPair, RsaPublicKeyComponents,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::*;
use crate::error::Kind;

const RSA: &str = include_str!("../../../tests/fixtures/keys/worthless-rsa.pem");
const NO_SET: &str = "not a set";

/// A key pair of an issuer.
enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

struct Signer {
    kid: &'static str,
    pair: Pair,
}

/// An issuer of tokens, and how often its keys were asked for.
struct Login {
    address: SocketAddr,
    set: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

/// A gateway as far as tokens are concerned.
struct House {
    config: Config,
    roster: Roster,
    tokens: Tokens,
}

// === impl Signer ===

impl Signer {
    fn ed25519(kid: &'static str) -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self { kid, pair: Pair::Ed25519(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap()) }
    }

    fn p256(kid: &'static str) -> Self {
        let (how, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let document = EcdsaKeyPair::generate_pkcs8(how, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(how, document.as_ref(), &random).unwrap();
        Self { kid, pair: Pair::P256(pair) }
    }

    fn rsa(kid: &'static str) -> Self {
        let text: String = RSA.lines().filter(|line| !line.starts_with("---")).collect();
        let pair = RsaKeyPair::from_pkcs8(&STANDARD.decode(text).unwrap()).unwrap();
        Self { kid, pair: Pair::Rsa(pair) }
    }

    fn public(&self) -> Value {
        let mut key = match &self.pair {
            Pair::Ed25519(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key().as_ref())})
            }
            Pair::P256(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y)})
            }
            Pair::Rsa(pair) => {
                let RsaPublicKeyComponents { n, e } =
                    RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({"kty": "RSA", "use": "sig", "n": encode(n), "e": encode(e)})
            }
        };
        key["kid"] = self.kid.into();
        key
    }

    fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Ed25519(_) => "EdDSA",
            Pair::P256(_) => "ES256",
            Pair::Rsa(_) => "RS256",
        }
    }

    fn sign(&self, claims: &Value) -> String {
        let header = json!({"alg": self.algorithm(), "kid": self.kid, "typ": "JWT"});
        self.sign_under(&header, claims)
    }

    fn sign_under(&self, header: &Value, claims: &Value) -> String {
        let text = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let (random, bytes) = (SystemRandom::new(), text.as_bytes());
        let signature = match &self.pair {
            Pair::Ed25519(pair) => pair.sign(bytes).as_ref().to_vec(),
            Pair::P256(pair) => pair.sign(&random, bytes).unwrap().as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                if header["alg"] == "PS256" {
                    pair.sign(&RSA_PSS_SHA256, &random, bytes, &mut signature).unwrap();
                } else {
                    pair.sign(&RSA_PKCS1_SHA256, &random, bytes, &mut signature).unwrap();
                }
                signature
            }
        };
        format!("{text}.{}", encode(signature))
    }
}

// === impl Login ===

impl Login {
    async fn start(signers: &[&Signer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (set, asked) = (Arc::<Mutex<String>>::default(), Arc::<AtomicUsize>::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, address, Arc::clone(&set), Arc::clone(&asked)));
        let login = Self { address, set, asked, _tasks: tasks };
        login.shows(signers);
        login
    }

    fn shows(&self, signers: &[&Signer]) {
        let keys: Vec<Value> = signers.iter().map(|signer| signer.public()).collect();
        *self.set.lock().unwrap() = json!({"keys": keys}).to_string();
    }

    /// From now on it answers with a failure.
    fn fails(&self) {
        *self.set.lock().unwrap() = NO_SET.to_owned();
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    fn issuer(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Claims that are taken, changed by these.
    fn claims(&self, change: &Value) -> Value {
        let end = now().as_secs() + 600;
        let mut claims = json!({"iss": self.issuer(), "aud": "gateway", "sub": "ann", "exp": end});
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    }
}

async fn serve(
    listener: TcpListener,
    address: SocketAddr,
    set: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let path = read_path(&mut stream).await;
        let issuer = format!("http://{address}");
        let set = set.lock().unwrap().clone();
        let (status, body) = match &*path {
            "/.well-known/openid-configuration" => (
                "200 OK",
                json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")}).to_string(),
            ),
            "/keys" => {
                asked.fetch_add(1, Ordering::Relaxed);
                (if set == NO_SET { "503 Away" } else { "200 OK" }, set)
            }
            _ => ("302 Found\r\nlocation: /keys", String::new()),
        };
        let length = body.len();
        let head =
            format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n");
        let _ = stream.write_all(format!("{head}\r\n{body}").as_bytes()).await;
    }
}

async fn read_path(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { break };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    head.split(' ').nth(1).unwrap_or_default().to_owned()
}

// === impl House ===

impl House {
    fn of(login: &Login, more: &str) -> Self {
        let issuer = login.issuer();
        let text = format!(
            "[providers.demo]\nkind = \"demo\"\n[teams.search]\n\
             [auth.oidc.corp]\nissuer = \"{issuer}\"\naudience = [\"gateway\"]\n{more}\n"
        );
        Self::on(&text, 1)
    }

    fn on(text: &str, generation: u64) -> Self {
        let config = Config::parse(text, Path::new("test.toml"), &["demo"]).unwrap();
        let roster = Roster::new(Arc::default());
        roster.adopt(&config);
        let kept = (&Client::new(1), &roster.accounts);
        let tokens = Tokens::build(&config, generation, kept).unwrap();
        Self { config, roster, tokens }
    }

    async fn show(&self, token: &str) -> Option<Result<Visitor, Error>> {
        let headers = bearer(token);
        self.tokens.admit(&headers, None, (&self.config, &self.roster)).await
    }

    async fn admit(&self, token: &str) -> Result<Caller, Error> {
        self.show(token).await.unwrap().map(|visitor| visitor.caller)
    }

    async fn refusal(&self, token: &str) -> Kind {
        let error = self.admit(token).await.unwrap_err();
        let signature = token.rsplit('.').next().unwrap();
        assert!(signature.is_empty() || !error.message.contains(signature), "{error}");
        error.kind
    }
}

fn bearer(token: &str) -> HeaderMap {
    let value = HeaderValue::from_bytes(format!("Bearer {token}").as_bytes()).unwrap();
    HeaderMap::from_iter([(http::header::AUTHORIZATION, value)])
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Lets so much time pass, without waiting for it.
async fn later(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

// === What is taken ===

#[tokio::test]
async fn a_token_of_each_sort_of_key_names_its_user() {
    let signers = [Signer::ed25519("a"), Signer::p256("b"), Signer::rsa("c")];
    let login = Login::start(&signers.each_ref()).await;
    let house = House::of(&login, "");
    for signer in &signers {
        let caller = house.admit(&signer.sign(&login.claims(&json!({})))).await.unwrap();
        assert_eq!(&**caller.key(), "oidc:corp");
        assert_eq!(caller.user().map(|user| &**user), Some("corp:ann"));
        assert_eq!(&**caller.owner(), "oidc:corp:ann");
        assert_eq!((caller.team(), caller.role()), (None, None));
    }
    assert_eq!(login.asked(), 1);
}

#[tokio::test]
async fn one_fetch_serves_a_hundred_that_come_at_once() {
    let signer = Signer::ed25519("a");
    let login = Login::start(&[&signer]).await;
    let house = House::of(&login, "");
    let tokens: Vec<String> = (0..100)
        .map(|user| signer.sign(&login.claims(&json!({"sub": format!("user-{user}")}))))
        .collect();
    let callers =
        futures_util::future::join_all(tokens.iter().map(|token| house.admit(token))).await;
    for (number, caller) in callers.into_iter().enumerate() {
        assert_eq!(**caller.unwrap().user().unwrap(), format!("corp:user-{number}"));
    }
    assert_eq!(login.asked(), 1);
}

#[tokio::test]
async fn users_have_the_terms_of_a_key_and_accounts_of_their_own() {
    let signer = Signer::p256("a");
    let login = Login::start(&[&signer]).await;
    let more = "team = \"groups\"\nteams = { g-1 = \"search\" }\nrole = \"roles\"\nkey = \"staff\"\n\
                [keys.staff]\ntemplate = true\nroutes = [\"demo/*\"]\nips = [\"10.0.0.0/8\"]\n\
                limits = { concurrency = 1 }\n";
    let house = House::of(&login, more);
    let claims = |user: &str| {
        login.claims(&json!({"sub": user, "groups": ["g-0", "g-1"], "roles": ["viewer"]}))
    };
    let ann = house.admit(&signer.sign(&claims("ann"))).await.unwrap();
    let ann_again = house.admit(&signer.sign(&claims("ann"))).await.unwrap();
    let bob = house.admit(&signer.sign(&claims("bob"))).await.unwrap();
    assert!(ann.may_call("demo/demo") && !ann.may_call("other"));
    assert_eq!(ann.team().map(|team| &**team), Some("search"));
    assert_eq!(ann.role(), Some(config::Role::Viewer));
    let account = |caller: &Caller| Arc::clone(&caller.tab().accounts[0]);
    assert!(Arc::ptr_eq(&account(&ann), &account(&ann_again)));
    assert!(!Arc::ptr_eq(&account(&ann), &account(&bob)));
    assert_eq!(&*account(&bob).name, "corp:bob");
    assert!(Arc::ptr_eq(&house.roster.accounts.account(Scope::User, "corp:ann"), &account(&ann)));
    let from = "192.0.2.1".parse().ok();
    let headers = bearer(&signer.sign(&claims("ann")));
    let known = (&house.config, &house.roster);
    let elsewhere = house.tokens.admit(&headers, from, known).await.unwrap();
    assert_eq!(elsewhere.unwrap_err().kind, Kind::NotAllowed);
    let stranger = signer.sign(&login.claims(&json!({"groups": ["search"]})));
    assert_eq!(house.refusal(&stranger).await, Kind::NotAllowed);
}

// === What is refused ===

#[tokio::test]
async fn what_is_not_for_here_or_not_for_now_is_refused() {
    let signer = Signer::ed25519("a");
    let login = Login::start(&[&signer]).await;
    let house = House::of(&login, "");
    let past = now().as_secs() - 3600;
    let future = now().as_secs() + 3600;
    for (change, kind) in [
        (json!({"exp": past}), Kind::ExpiredKey),
        (json!({"exp": null}), Kind::InvalidKey),
        (json!({"nbf": future}), Kind::InvalidKey),
        (json!({"aud": "somebody"}), Kind::InvalidKey),
        (json!({"aud": null}), Kind::InvalidKey),
        (json!({"iss": "https://evil.example"}), Kind::InvalidKey),
        (json!({"iss": format!("{}/", login.issuer())}), Kind::InvalidKey),
        (json!({"sub": null}), Kind::InvalidKey),
        (json!({"sub": ""}), Kind::InvalidKey),
    ] {
        let token = signer.sign(&login.claims(&change));
        assert_eq!(house.refusal(&token).await, kind, "{change}");
    }
    assert_eq!(login.asked(), 1);
}

#[tokio::test]
async fn no_header_talks_the_gateway_into_another_algorithm() {
    let (rsa, curve) = (Signer::rsa("a"), Signer::p256("b"));
    let login = Login::start(&[&rsa, &curve]).await;
    let house = House::of(&login, "");
    let claims = login.claims(&json!({}));
    let unsigned = |alg: &str, kid: &str| {
        let header = json!({"alg": alg, "kid": kid});
        format!("{}.{}.", encode(header.to_string()), encode(claims.to_string()))
    };
    // HMAC with the public key, which everybody knows.
    let n = rsa.public()["n"].as_str().unwrap().to_owned();
    let text = unsigned("HS256", "a").trim_end_matches('.').to_owned();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, n.as_bytes());
    let forged = format!("{text}.{}", encode(ring::hmac::sign(&key, text.as_bytes())));
    let mut refused =
        vec![forged, unsigned("none", "a"), unsigned("None", "a"), unsigned("RS256", "a")];
    for header in [
        json!({"alg": "ES256", "kid": "a"}),
        json!({"alg": "RS512", "kid": "a"}),
        json!({"alg": "PS256", "kid": "a"}),
        json!({"alg": "RS256", "kid": "b"}),
        json!({"alg": "RS256", "kid": "a", "crit": ["exp"]}),
        json!({"alg": "RS256", "kid": "a", "typ": "logout+jwt"}),
        json!({"alg": "RS256", "kid": 1}),
        json!({"kid": "a"}),
    ] {
        refused.push(rsa.sign_under(&header, &claims));
    }
    // Keys that a token brings along are not looked at.
    let stranger = Signer::rsa("mine");
    let header =
        json!({"alg": "ES256", "kid": "mine", "jwk": curve.public(), "jku": "http://127.0.0.1:1"});
    refused.push(Signer::p256("mine").sign_under(&header, &claims));
    for token in refused {
        assert_eq!(house.refusal(&token).await, Kind::InvalidKey, "{token}");
    }
    let allowed = House::of(&login, "algorithms = [\"PS256\"]");
    let token = rsa.sign_under(&json!({"alg": "PS256"}), &claims);
    assert!(allowed.admit(&token).await.is_ok());
    assert_eq!(allowed.refusal(&stranger.sign(&claims)).await, Kind::InvalidKey);
}

#[tokio::test]
async fn what_is_no_token_is_not_looked_at() {
    let signer = Signer::ed25519("a");
    let login = Login::start(&[&signer]).await;
    let house = House::of(&login, "");
    let long = login.claims(&json!({"padding": "x".repeat(20_000)}));
    for text in [&signer.sign(&long), "sk-sp-key", "eyJ.a", "eyJ.a.b.c", "eyJ.a.b=", "eyJ.\u{e9}.b"]
    {
        assert!(house.show(text).await.is_none());
    }
    for text in ["eyJ..", "eyJhIjoxfQ.e30.", "eyJ.a.b"] {
        assert_eq!(house.refusal(text).await, Kind::InvalidKey, "{text}");
    }
    assert_eq!(login.asked(), 0);
}

#[tokio::test]
async fn a_changed_token_is_another_token() {
    let signer = Signer::p256("a");
    let login = Login::start(&[&signer]).await;
    let house = House::of(&login, "");
    let token = signer.sign(&login.claims(&json!({})));
    house.admit(&token).await.unwrap();
    let root = signer.sign(&login.claims(&json!({"sub": "root"})));
    let [header, claims, _] = root.split('.').collect::<Vec<_>>()[..] else { unreachable!() };
    let signature = token.rsplit('.').next().unwrap();
    assert_eq!(house.refusal(&format!("{header}.{claims}.{signature}")).await, Kind::InvalidKey);
    for place in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
        let shown = house.show(std::str::from_utf8(&bytes).unwrap()).await;
        assert!(shown.is_none_or(|shown| shown.is_err()), "byte {place}");
    }
    assert!(house.admit(&token).await.is_ok());
}

// === Keys that change, and issuers that are away ===

#[tokio::test]
async fn a_new_key_is_found_at_once_and_asked_for_once_in_ten_seconds() {
    let (old, new) = (Signer::ed25519("old"), Signer::ed25519("new"));
    let login = Login::start(&[&old]).await;
    let house = House::of(&login, "");
    let claims = login.claims(&json!({}));
    house.admit(&old.sign(&claims)).await.unwrap();
    login.shows(&[&old, &new]);
    // The keys were fetched just now.
    assert_eq!(house.refusal(&new.sign(&claims)).await, Kind::InvalidKey);
    assert_eq!(login.asked(), 1);
    later(Duration::from_secs(10)).await;
    house.admit(&new.sign(&claims)).await.unwrap();
    assert_eq!(login.asked(), 2);
    for _ in 0..20 {
        let stranger = Signer::ed25519("stranger").sign(&claims);
        assert_eq!(house.refusal(&stranger).await, Kind::InvalidKey);
    }
    assert_eq!(login.asked(), 2);
}

#[tokio::test]
async fn a_key_that_is_withdrawn_takes_its_tokens_with_it() {
    let (old, new) = (Signer::ed25519("old"), Signer::ed25519("new"));
    let login = Login::start(&[&old]).await;
    let house = House::of(&login, "");
    let token = old.sign(&login.claims(&json!({})));
    house.admit(&token).await.unwrap();
    login.shows(&[&new]);
    later(Duration::from_mins(10)).await;
    // Renewed behind the back of whoever comes first.
    house.admit(&token).await.unwrap();
    house.tokens.issuers["corp"].keyring.fetched().await;
    assert_eq!(house.refusal(&token).await, Kind::InvalidKey);
    assert_eq!(login.asked(), 2);
}

#[tokio::test]
async fn known_keys_outlast_an_issuer_that_is_away_for_an_hour_and_no_longer() {
    let signer = Signer::ed25519("a");
    let login = Login::start(&[&signer]).await;
    let house = House::of(&login, "");
    let token = signer.sign(&login.claims(&json!({})));
    house.admit(&token).await.unwrap();
    login.fails();
    later(Duration::from_mins(59)).await;
    house.admit(&token).await.unwrap();
    house.tokens.issuers["corp"].keyring.fetched().await;
    later(Duration::from_mins(1)).await;
    assert_eq!(house.refusal(&token).await, Kind::InvalidKey);
    login.shows(&[&signer]);
    later(Duration::from_secs(10)).await;
    assert!(house.admit(&token).await.is_ok());
}

#[tokio::test]
async fn while_an_issuer_was_never_reached_its_tokens_wait() {
    let signer = Signer::ed25519("a");
    let login = Login::start(&[&signer]).await;
    login.fails();
    let house = House::of(&login, "");
    let token = signer.sign(&login.claims(&json!({})));
    let error = house.admit(&token).await.unwrap_err();
    assert_eq!((error.kind, error.retry_after), (Kind::Overloaded, Some(Duration::from_secs(1))));
    login.shows(&[&signer]);
    assert_eq!(house.refusal(&token).await, Kind::Overloaded, "not asked again at once");
    later(Duration::from_secs(1)).await;
    assert!(house.admit(&token).await.is_ok());
}

#[tokio::test]
async fn no_redirect_is_followed() {
    let signer = Signer::ed25519("a");
    let login = Login::start(&[&signer]).await;
    let house = House::of(&login, &format!("jwks_url = \"{}/moved\"", login.issuer()));
    let token = signer.sign(&login.claims(&json!({})));
    assert_eq!(house.refusal(&token).await, Kind::Overloaded);
    assert_eq!(login.asked(), 0);
}

#[tokio::test]
async fn another_config_keeps_keys_and_counts_and_reads_claims_anew() {
    let signer = Signer::ed25519("a");
    let login = Login::start(&[&signer]).await;
    let limits = |count: u32| {
        format!(
            "key = \"staff\"\n[keys.staff]\ntemplate = true\nlimits = {{ concurrency = {count} }}"
        )
    };
    let before = House::of(&login, &limits(1));
    let token = signer.sign(&login.claims(&json!({})));
    let old = before.admit(&token).await.unwrap();
    login.fails();
    let mut after = House::of(&login, &limits(2));
    after.tokens.follow(2);
    after.tokens.inherit(&before.tokens);
    let new = after.admit(&token).await.unwrap();
    assert!(Arc::ptr_eq(&old.tab().accounts[0], &new.tab().accounts[0]));
    assert_eq!(login.asked(), 1);
    let gone = House::on("[providers.demo]\nkind = \"demo\"\n", 3);
    assert!(gone.show(&token).await.is_none());
}

proptest! {
    #[test]
    fn no_bytes_are_ever_taken_for_a_token(
        parts in proptest::array::uniform3(proptest::collection::vec(any::<u8>(), 0..80)),
        header in "\\{\"(alg|kid|typ)\":\"(RS256|ES256|EdDSA|none|HS256)\"(,\"alg\":\"ES256\")?\\}",
        structured in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let text = "[providers.demo]\nkind = \"demo\"\n[auth.oidc.corp]\n\
                        issuer = \"http://127.0.0.1:1\"\naudience = \"gateway\"\n";
            let house = House::on(text, 1);
            let [first, second, third] = parts;
            let first = if structured { header.into_bytes() } else { first };
            let token = format!("{}.{}.{}", encode(first), encode(second), encode(third));
            if let Some(shown) = house.show(&token).await {
                prop_assert_eq!(shown.unwrap_err().kind, Kind::InvalidKey);
            }
            Ok(())
        })?;
    }
}
