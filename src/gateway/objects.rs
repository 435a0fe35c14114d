//! Files and batches: a provider keeps them, and here it is known whose they are and where.
//!
//! Their ids are the provider's. One that was not given out here, or not to this key, is unknown.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Body as HttpBody;
use http_body_util::BodyExt;
use serde::Deserialize;

use super::arrival::{self, Ask, Filed, Question, Unreadable, refused};
use super::ask::Answer;
use super::call::Call;
use super::chain::Chain;
use super::relayed::Relayed;
use super::shelf::unusable;
use super::upload::Manifest;
use super::{Body, Gateway, batches, guarding, journey, pipeline, till, upload};
use crate::access::{Caller, CallerRef};
use crate::canon::{Outcome, Owner, Relay, Surface};
use crate::dialect::references;
use crate::error::{Error, Kind};
use crate::provider::Provider;
use crate::store::{self, Draft, Object, ObjectKind};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// What a list holds at the most, and where nothing is said.
const LONGEST_LIST: u32 = 1000;
const USUAL_LIST: u32 = 20;
/// Objects looked at in one step.
const PAGE: u32 = 200;

/// How a question is answered.
enum Plan {
    /// From what is known here.
    Known(Vec<u8>),
    Asked(Box<Question>, Arc<Chain>),
}

/// What the answer is about.
struct About<'a> {
    relay: Relay,
    id: &'a str,
    /// What is in the file that is uploaded.
    manifest: Option<Manifest>,
}

/// What is read of an object, and of the question that makes a batch.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Facts {
    id: String,
    purpose: Option<String>,
    input_file_id: Option<String>,
    output_file_id: Option<String>,
    error_file_id: Option<String>,
}

/// Answers one question about files or batches.
pub(super) async fn answer<B>(
    mut call: Box<Call>,
    ask: &Ask,
    filed: &Filed,
    relay: Relay,
    headers: &HeaderMap,
    body: B,
) -> Response<Body>
where
    B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
{
    let (question, chain) = match plan(&mut call, ask, filed, relay, headers, body).await {
        Ok(Plan::Asked(question, chain)) => (question, chain),
        Ok(Plan::Known(list)) => {
            let response = call.respond(StatusCode::OK, JSON);
            return response.map(|()| Body::whole(list.into(), Some(call)));
        }
        Err(Unreadable::Refused(error)) => return call.refuse(error),
        Err(Unreadable::Gone | Unreadable::ForAgent(_)) => return pipeline::broken_off(&call),
    };
    let about = About { relay, id: &filed.id, manifest: None };
    ask_keeper(call, question, chain, about).await
}

async fn ask_keeper(
    mut call: Box<Call>,
    question: Box<Question>,
    chain: Arc<Chain>,
    mut about: About<'_>,
) -> Response<Body> {
    call.routed(&chain, &question);
    about.manifest = question.relayed.as_ref().and_then(|relayed| relayed.manifest.clone());
    let (mut call, mut answer) = journey::walk(call, question).await;
    if let Ok(Answer::Whole { body, .. }) = &answer
        && let Err(failure) = note(&mut call, &about, body).await
    {
        call.ends(Outcome::Internal);
        answer = Err(unusable(&failure));
    }
    if let (Relay::FileContent, Ok(content)) = (about.relay, &mut answer) {
        call = batches::watch(call, about.id, content).await;
    }
    pipeline::reply(call, answer)
}

/// Asks once more for what a caller has, behind the caller's back: for what is learnt by it.
pub(super) async fn look_again(gateway: &Arc<Gateway>, caller: &CallerRef, relay: Relay, id: &str) {
    let house = gateway.snapshot();
    let owner = Owner::new(&*caller.owner);
    let Ok(provider) = find(gateway, &owner, kind_of(relay), id).await else { return };
    let Some(keeper) = house.provider(&provider) else { return };
    let chain = Arc::new(house.account(keeper, relay.surface().name()));
    let mut call = Call::open((Arc::clone(gateway), house), relay.surface(), None, None);
    call.owner = Some(caller.owner.as_str().into());
    match gateway.recognise(caller).await {
        Ok(caller) => call.admitted(&caller),
        // Whoever cannot call any more has used it all the same.
        Err(_) => call.record.key = Some(caller.key.as_str().into()),
    }
    if till::impose(&mut call).await.is_err() {
        return;
    }
    let question = Question::bare(&HeaderMap::new(), Relayed::object(relay, id.to_owned()));
    let about = About { relay, id, manifest: None };
    let asked = ask_keeper(call, question, chain, about);
    let mut body = Box::pin(asked).await.into_body();
    while let Some(Ok(_)) = body.frame().await {}
}

/// The file with the answers of a batch, as far as that is known.
pub(super) async fn answers_of(
    gateway: &Gateway,
    owner: &Owner,
    batch: &str,
) -> Result<Option<String>, store::Failure> {
    let kept = gateway.store().get(owner, ObjectKind::Batch, batch).await?;
    let said = kept.as_ref().and_then(split).map(|(_, said)| said).unwrap_or_default();
    Ok(serde_json::from_str::<Facts>(said).ok().and_then(|facts| facts.output_file_id))
}

/// Who asks, for what, and who has it.
async fn plan<B>(
    call: &mut Call,
    ask: &Ask,
    filed: &Filed,
    relay: Relay,
    headers: &HeaderMap,
    body: B,
) -> Result<Plan, Unreadable>
where
    B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
{
    let house = Arc::clone(&call.house);
    let caller =
        call.gateway.admit(&house, headers, call.peer()).await.map_err(Unreadable::Refused)?;
    call.admitted(&caller);
    guarding::refuse_objects(call, relay).map_err(Unreadable::Refused)?;
    let owner = Owner::new(Arc::clone(caller.owner()));
    let (server, gateway) = (&house.config.server, Arc::clone(&call.gateway));
    let (question, provider) = match relay {
        Relay::ListFiles | Relay::ListBatches => {
            return list(&gateway, &owner, filed, kind_of(relay)).await.map(Plan::Known);
        }
        Relay::UploadFile => {
            let provider = choose(call, &caller, filed, relay)?;
            let form = (relay, headers);
            (upload::read(body, form, server, &gateway.bodies).await?, provider)
        }
        Relay::CreateBatch => {
            let ask = Ask { model: Some(String::new()), ..ask.clone() };
            let question = arrival::read(body, (&ask, headers), server, &gateway.bodies).await?;
            let facts = serde_json::from_slice::<Facts>(&question.payload.to_bytes());
            let file = facts.ok().and_then(|facts| facts.input_file_id).ok_or_else(|| {
                Unreadable::Refused(Error::invalid("`input_file_id` is missing."))
            })?;
            let provider = find(&gateway, &owner, ObjectKind::File, &file).await?;
            if let Some(provider) = house.provider(&provider) {
                look_into(call, &caller, &file, provider).await?;
            }
            (question, provider)
        }
        _ => {
            let kept = find(&gateway, &owner, kind_of(relay), &filed.id).await?;
            (Question::bare(headers, Relayed::object(relay, filed.id.clone())), kept)
        }
    };
    let Some(keeper) = house.provider(&provider) else {
        let message = format!("`{provider}` has this, and is no longer configured.");
        return Err(refused(Kind::Unsupported, message));
    };
    if !may_use(&caller, &keeper.name, relay) {
        let message = format!("This key may not use `{}`.", scope(&keeper.name, relay));
        return Err(refused(Kind::NotAllowed, message));
    }
    let chain = Arc::new(house.account(keeper, relay.surface().name()));
    Ok(Plan::Asked(question, chain))
}

/// Whether a file may become a batch of this caller's, and whether there is room for that.
async fn look_into(
    call: &mut Call,
    caller: &Caller,
    file: &str,
    provider: &Arc<Provider>,
) -> Result<(), Unreadable> {
    let (gateway, owner) = (Arc::clone(&call.gateway), Owner::new(Arc::clone(caller.owner())));
    let contents = batches::manifest::find(&gateway, &owner, file).await;
    let contents = contents.map_err(|failure| Unreadable::Refused(unusable(&failure)))?;
    let contents = batches::manifest::check(contents, caller, provider);
    let contents = contents.map_err(Unreadable::Refused)?;
    for file in &contents.files {
        let keeper = find(&gateway, &owner, ObjectKind::File, file).await?;
        if *keeper != *provider.name {
            let message =
                format!("`{}` does not have `{file}`, which the file names.", provider.name);
            return Err(refused(Kind::Unsupported, message));
        }
    }
    let demand = batches::manifest::demand(call, provider, &contents);
    till::hold_budget(call, demand).await.map_err(Unreadable::Refused)
}

/// What a key's `routes` must cover for files and batches of a provider.
fn scope(provider: &str, relay: Relay) -> String {
    format!("{provider}/{}", relay.surface().name())
}

fn may_use(caller: &Caller, provider: &str, relay: Relay) -> bool {
    caller.may_call(&scope(provider, relay))
}

/// The provider for a new file: the one that is named, or the only one there is.
fn choose(call: &Call, caller: &Caller, filed: &Filed, relay: Relay) -> Result<String, Unreadable> {
    let keepers = call.house.providers().filter(|provider| provider.relays(relay));
    let keepers = keepers.filter(|provider| may_use(caller, &provider.name, relay));
    let keepers: Vec<&Arc<Provider>> = keepers.collect();
    let names = keepers.iter().map(|provider| &*provider.name).collect::<Vec<_>>().join("`, `");
    match (filed.parameter("provider"), keepers.as_slice()) {
        (Some(name), keepers) if keepers.iter().any(|keeper| *keeper.name == *name) => {
            Ok(name.to_owned())
        }
        (None, [only]) => Ok(only.name.to_string()),
        (_, []) => {
            let message = "No provider that this key may use keeps files.";
            Err(refused(Kind::Unsupported, message))
        }
        (Some(name), _) => {
            let message = format!("`{name}` is not one of the providers with files: `{names}`.");
            Err(refused(Kind::Unsupported, message))
        }
        (None, _) => {
            let message = format!(
                "Several providers keep files; say which in the URL, as in `?provider=NAME`: \
                 `{names}`."
            );
            Err(refused(Kind::InvalidRequest, message))
        }
    }
}

fn kind_of(relay: Relay) -> ObjectKind {
    if relay.surface() == Surface::Batches { ObjectKind::Batch } else { ObjectKind::File }
}

/// The provider that keeps the files to which a question refers; `None` where it refers to none.
pub(super) async fn keeper(
    call: &Call,
    question: &Question,
) -> Result<Option<Arc<str>>, Unreadable> {
    let Some(owner) = call.owner() else { return Ok(None) };
    let body = question.payload.to_bytes();
    let Some(found) = references::read(call.surface().dialect(), &body) else {
        let message = "The body is nested too deeply to be looked through for files.";
        return Err(refused(Kind::InvalidRequest, message));
    };
    let files: BTreeSet<String> = found.files.into_iter().collect();
    let mut keeper: Option<Arc<str>> = None;
    for file in files {
        let provider = find(&call.gateway, &owner, ObjectKind::File, &file).await?;
        let first = keeper.get_or_insert_with(|| provider.as_str().into());
        if **first != *provider {
            let message = format!("Some of the files are kept by `{first}`, some by `{provider}`.");
            return Err(refused(Kind::Unsupported, message));
        }
    }
    Ok(keeper)
}

/// The provider that has an object of this owner's.
async fn find(
    gateway: &Gateway,
    owner: &Owner,
    kind: ObjectKind,
    id: &str,
) -> Result<String, Unreadable> {
    let found = gateway.store().get(owner, kind, id).await;
    let found = found.map_err(|failure| Unreadable::Refused(unusable(&failure)))?;
    let kept = found.as_ref().and_then(|object| split(object));
    kept.map(|(provider, _)| provider.to_owned()).ok_or_else(|| {
        let message = format!("There is no object with the id `{id}`.");
        refused(Kind::NotFound, message)
    })
}

/// The provider and what it last said of the object.
fn split(object: &Object) -> Option<(&str, &str)> {
    str::from_utf8(&object.value).ok()?.split_once('\n')
}

/// Remembers what an answer says: whose the object is, where it is, and what became of it.
async fn note(
    call: &mut Call,
    About { relay, id, manifest }: &About<'_>,
    body: &Bytes,
) -> Result<(), store::Failure> {
    let (relay, id) = (*relay, *id);
    let (Some(owner), Some(target)) = (call.owner(), call.target()) else { return Ok(()) };
    let provider = Arc::clone(&target.provider.name);
    let store = call.gateway.store().clone();
    if relay == Relay::DeleteFile {
        store.delete(&owner, ObjectKind::Lines, id).await?;
        return store.delete(&owner, ObjectKind::File, id).await.map(drop);
    }
    let Ok(facts) = serde_json::from_slice::<Facts>(body) else { return Ok(()) };
    let is_new = matches!(relay, Relay::UploadFile | Relay::CreateBatch);
    // What is asked for by its id is that, whatever the answer calls it.
    if facts.id.is_empty() || relay == Relay::FileContent || !(is_new || facts.id == id) {
        return Ok(());
    }
    let keep = |id: &str, said: &[u8]| Draft {
        id: id.to_owned(),
        value: [provider.as_bytes(), b"\n", said].concat().into(),
        expires_at: None,
    };
    store.put(&owner, kind_of(relay), keep(&facts.id, body)).await?;
    if let Some(contents) = manifest.as_ref().and_then(|manifest| manifest.get()) {
        batches::manifest::keep(&call.gateway, &owner, &facts.id, contents).await?;
    }
    if relay == Relay::CreateBatch {
        batches::begin(call, &owner, &facts.id).await?;
    }
    if relay.surface() == Surface::Batches {
        batches::look(call, &owner, body).await?;
    }
    for file in [facts.output_file_id, facts.error_file_id].into_iter().flatten() {
        if store.get(&owner, ObjectKind::File, &file).await?.is_none() {
            let said = serde_json::json!({"id": file, "object": "file", "purpose": "batch_output"});
            let said = said.to_string();
            store.put(&owner, ObjectKind::File, keep(&file, said.as_bytes())).await?;
        }
    }
    Ok(())
}

/// The owner's objects as they were last seen here, the newest first.
async fn list(
    gateway: &Gateway,
    owner: &Owner,
    filed: &Filed,
    kind: ObjectKind,
) -> Result<Vec<u8>, Unreadable> {
    let unusable = |failure: store::Failure| Unreadable::Refused(unusable(&failure));
    if filed.parameter("order").is_some_and(|order| order != "desc") {
        return Err(refused(Kind::InvalidRequest, "`order` can only be `desc` here."));
    }
    let limit = match filed.parameter("limit").map(str::parse::<u32>) {
        None => USUAL_LIST,
        Some(Ok(limit @ 1..)) => limit.min(LONGEST_LIST),
        Some(_) => return Err(refused(Kind::InvalidRequest, "`limit` must be a positive number.")),
    };
    let mut after = None;
    if let Some(id) = filed.parameter("after") {
        let last = gateway.store().get(owner, kind, id).await.map_err(unusable)?;
        let last = last.ok_or_else(|| refused(Kind::NotFound, format!("There is no `{id}`.")))?;
        after = Some(last.position);
    }
    let purpose = filed.parameter("purpose");
    let mut found: Vec<Object> = Vec::new();
    // One more than is shown tells whether there is more.
    while found.len() <= limit as usize {
        let page = gateway.store().list(owner, kind, after, PAGE).await.map_err(unusable)?;
        let Some(last) = page.last() else { break };
        after = Some(last.position);
        found.extend(page.into_iter().filter(|object| has_purpose(object, purpose)));
    }
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    Ok(write_list(&found, more))
}

fn has_purpose(object: &Object, purpose: Option<&str>) -> bool {
    let said = split(object).map(|(_, said)| said).unwrap_or_default();
    let facts = || serde_json::from_str::<Facts>(said).unwrap_or_default();
    purpose.is_none_or(|purpose| facts().purpose.as_deref() == Some(purpose))
}

fn write_list(found: &[Object], more: bool) -> Vec<u8> {
    let said = found.iter().filter_map(split).map(|(_, said)| said);
    let data = said.collect::<Vec<_>>().join(",");
    let id = |object: Option<&Object>| serde_json::json!(object.map(|object| &object.id));
    let (first, last) = (id(found.first()), id(found.last()));
    format!(
        r#"{{"object":"list","data":[{data}],"first_id":{first},"last_id":{last},"has_more":{more}}}"#
    )
    .into_bytes()
}
