//! Whoever an identity provider vouches for may call with its token, as themselves and as nobody
//! else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use crate::support::client::{self, Answer, CHAT};
use crate::support::gateway::provider;
use crate::support::replies::REPLY;
use crate::support::{Gateway, Script, Upstream, until};

const ISSUER: &str = "https://login.example/tenant";
/// What a call of `question` is taken to need is between this and what one call leaves of it.
const ROOM_FOR_ONE: u64 = 70;

/// An issuer of tokens, by one key.
struct Login {
    upstream: Upstream,
    pair: Ed25519KeyPair,
    is_away: Arc<AtomicBool>,
}

impl Login {
    async fn start() -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
        let public = encode(pair.public_key().as_ref());
        let key = json!({"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": public});
        let set = json!({"keys": [key]}).to_string();
        let is_away = Arc::<AtomicBool>::default();
        let away = Arc::clone(&is_away);
        let upstream = Upstream::answering(move |request| {
            assert_eq!(request.path, "/keys");
            if away.load(Ordering::Relaxed) {
                Script::json(503, "")
            } else {
                Script::json(200, &set)
            }
        })
        .await;
        Self { upstream, pair, is_away }
    }

    /// The section of this issuer, and a key that its users are like.
    fn section(&self, terms: &str) -> String {
        let address = self.upstream.address;
        format!(
            "[teams.search]\n\n[auth.oidc.corp]\nissuer = \"{ISSUER}\"\naudience = \"gateway\"\n\
             jwks_url = \"http://{address}/keys\"\nkey = \"staff\"\nteam = \"groups\"\n\
             unknown_team = \"allow\"\n\n[keys.staff]\ntemplate = true\n{terms}\n\n"
        )
    }

    fn token(&self, user: &str, lives: i64) -> String {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let end = i64::try_from(since).unwrap() + lives;
        let claims = json!({
            "iss": ISSUER, "aud": "gateway", "sub": user, "exp": end, "groups": ["search"],
        });
        let header = json!({"alg": "EdDSA", "kid": "k"});
        let text = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let signature = self.pair.sign(text.as_bytes());
        format!("{text}.{}", encode(signature.as_ref()))
    }
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

async fn ask(gateway: &Gateway, token: &str) -> Answer {
    let question = json!({
        "model": "up/a", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}],
    });
    client::post(gateway.address, CHAT, token, question.to_string()).await
}

fn code(answer: &Answer) -> Value {
    answer.json()["error"]["code"].clone()
}

async fn house(terms: &str) -> (Login, Upstream, Gateway) {
    let login = Login::start().await;
    let upstream = Upstream::start([("a", [Script::json(200, REPLY)])]).await;
    let gateway = Gateway::before(&upstream, &login.section(terms)).await;
    (login, upstream, gateway)
}

#[tokio::test]
async fn a_token_is_as_good_as_a_key_and_its_calls_are_its_users() {
    let (login, upstream, gateway) = house("routes = [\"up/*\"]").await;
    let token = login.token("ann", 600);
    assert_eq!(ask(&gateway, &token).await.status, 200);
    let models = client::get(gateway.address, "/v1/models", &token).await;
    assert_eq!(models.status, 200, "{}", models.text());
    let usage = client::get(gateway.address, "/v1/me/usage", &token).await.json();
    assert_eq!(usage["key"], "oidc:corp", "{usage}");
    let record = gateway.record().await;
    assert_eq!((&record["key"], &record["team"]), (&json!("oidc:corp"), &json!("search")));
    assert_eq!(record["user"], "corp:ann", "{record}");
    assert_eq!(login.upstream.requests().len(), 1);
    let sent = upstream.only_request();
    assert!(!format!("{sent:?}").contains(&token));
    assert!(!gateway.output().iter().any(|line| line.contains(&token)));
}

#[tokio::test]
async fn a_token_that_does_not_hold_is_refused_on_every_road() {
    let (login, upstream, gateway) = house("").await;
    let good = login.token("ann", 600);
    let (rest, _) = good.rsplit_once('.').unwrap();
    let signature = login.pair.sign(b"something else");
    let forged = format!("{rest}.{}", encode(signature.as_ref()));
    let expired = login.token("ann", -600);
    for (token, told) in [(&forged, "invalid_key"), (&expired, "expired_key")] {
        for (method, path) in [
            (Method::POST, CHAT),
            (Method::POST, "/v1/responses"),
            (Method::POST, "/v1/embeddings"),
            (Method::GET, "/v1/models"),
            (Method::GET, "/v1/me/usage"),
            (Method::GET, "/v1/files"),
            (Method::GET, "/v1/responses/resp_1"),
        ] {
            let body = json!({"model": "up/a", "input": "Hi", "messages": []}).to_string();
            let request = client::request(method, path, token, body.into());
            let answer = client::open(gateway.address, request).await.whole().await;
            assert_eq!((answer.status, code(&answer)), (401, json!(told)), "{path}");
            assert!(!answer.text().contains(token.rsplit('.').next().unwrap()));
        }
    }
    assert!(upstream.requests().is_empty());
    assert!(!gateway.output().iter().any(|line| line.contains(&forged)));
    // The admin listener is for those with a role.
    assert_eq!(client::get(gateway.admin, "/admin/config", &good).await.status, 403);
}

#[tokio::test]
async fn what_one_user_has_stored_is_unknown_to_another_of_the_same_issuer() {
    let (login, _upstream, gateway) = house("").await;
    let (ann, bob) = (login.token("ann", 600), login.token("bob", 600));
    let body = json!({"model": "up/a", "input": "Hi"}).to_string();
    let answer = client::post(gateway.address, "/v1/responses", &ann, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let path = format!("/v1/responses/{}", answer.json()["id"].as_str().unwrap());
    assert_eq!(client::get(gateway.address, &path, &ann).await.status, 200);
    assert_eq!(client::get(gateway.address, &path, &bob).await.status, 404);
    assert_eq!(client::get(gateway.address, &path, &login.token("ann", 500)).await.status, 200);
}

#[tokio::test]
async fn each_user_has_limits_of_their_own_that_outlive_a_reload() {
    let terms = "limits = { requests = \"1/h\" }";
    let (login, upstream, gateway) = house(terms).await;
    assert_eq!(ask(&gateway, &login.token("ann", 600)).await.status, 200);
    let again = login.token("ann", 601);
    assert_eq!(code(&ask(&gateway, &again).await), "rate_limited");
    assert_eq!(ask(&gateway, &login.token("bob", 600)).await.status, 200);
    // The issuer's keys stay known, too.
    login.is_away.store(true, Ordering::Relaxed);
    let sections = provider("up", &upstream) + &login.section(terms);
    assert_eq!(gateway.reload(&(sections.clone() + "# again")).await.status, 200);
    assert_eq!(code(&ask(&gateway, &again).await), "rate_limited");
    assert_eq!(ask(&gateway, &login.token("eve", 600)).await.status, 200);
    let without = provider("up", &upstream);
    assert_eq!(gateway.reload(&without).await.status, 200);
    assert_eq!(code(&ask(&gateway, &again).await), "invalid_key");
}

#[tokio::test]
async fn a_token_that_is_known_is_refused_from_the_reload_on_that_revokes_it() {
    let (login, upstream, gateway) = house("").await;
    let ann = login.token("ann", 600);
    let again = login.token("ann", 601);
    let bob = login.token("bob", 600);
    for token in [&ann, &again, &bob] {
        assert_eq!(ask(&gateway, token).await.status, 200);
    }
    let change = |more: &str| {
        let written =
            login.section("").replacen("unknown_team", &format!("{more}\nunknown_team"), 1);
        provider("up", &upstream) + &written
    };
    assert_eq!(gateway.reload(&change("revoked = [\"ann\"]")).await.status, 200);
    for token in [&ann, &again] {
        let refused = ask(&gateway, token).await;
        assert_eq!((refused.status, code(&refused)), (401, json!("key_revoked")));
    }
    assert_eq!(ask(&gateway, &bob).await.status, 200);
    // These tokens do not say when they were issued.
    let after = change("issued_after = 2026-01-01T00:00:00Z");
    assert_eq!(gateway.reload(&after).await.status, 200);
    assert_eq!(code(&ask(&gateway, &bob).await), "key_revoked");
    assert_eq!(gateway.reload(&change("")).await.status, 200);
    assert_eq!(ask(&gateway, &ann).await.status, 200);
}

#[tokio::test]
async fn what_a_user_has_spent_is_known_after_a_restart() {
    let login = Login::start().await;
    let upstream = Upstream::start([("a", [Script::json(200, REPLY)])]).await;
    let folder = tempfile::tempdir().unwrap();
    let store = format!("[store]\nurl = \"sqlite:{}\"\n\n", folder.path().join("s.db").display());
    let budget = format!("budget = [{{ tokens = {ROOM_FOR_ONE}, window = \"none\" }}]");
    let sections = store + &provider("up", &upstream) + &login.section(&budget);
    let gateway = Gateway::start("", &sections).await;
    let ann = login.token("ann", 600);
    assert_eq!(ask(&gateway, &ann).await.status, 200);
    assert_eq!(code(&ask(&gateway, &ann).await), "budget_exceeded");
    gateway.stop();
    let gateway = Gateway::start("", &sections).await;
    assert_eq!(code(&ask(&gateway, &ann).await), "budget_exceeded");
    let usage = client::get(gateway.address, "/v1/me/usage", &ann).await.json();
    assert_eq!(usage["budgets"][0]["used"], 15, "{usage}");
    assert_eq!(ask(&gateway, &login.token("bob", 600)).await.status, 200);
    until("both calls reached the upstream", || upstream.requests().len() == 2).await;
}
