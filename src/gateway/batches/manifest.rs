//! What the lines of a batch want is known from when its file came, and must be its key's to want.

use std::sync::Arc;

use bytes::Bytes;

use crate::access::Caller;
use crate::access::account::Demand;
use crate::canon::{Owner, Usage};
use crate::dialect::batch::{Contents, Share};
use crate::error::{Error, Kind};
use crate::gateway::Gateway;
use crate::gateway::call::Call;
use crate::provider::Provider;
use crate::store::{Draft, Failure, ObjectKind};

/// An answer is taken to have so many tokens where its question does not bound it, and its model
/// does not either.
const USUAL_MOST: u64 = 4096;

/// Notes what is in a file that was uploaded.
pub(in crate::gateway) async fn keep(
    gateway: &Gateway,
    owner: &Owner,
    file: &str,
    contents: &Contents,
) -> Result<(), Failure> {
    let Ok(value) = serde_json::to_vec(contents) else { return Ok(()) };
    let draft = Draft { id: file.to_owned(), value: value.into(), expires_at: None };
    gateway.store().put(owner, ObjectKind::Lines, draft).await
}

pub(in crate::gateway) async fn find(
    gateway: &Gateway,
    owner: &Owner,
    file: &str,
) -> Result<Option<Contents>, Failure> {
    let kept = gateway.store().get(owner, ObjectKind::Lines, file).await?;
    Ok(kept.and_then(|kept| read(&kept.value)))
}

fn read(value: &Bytes) -> Option<Contents> {
    serde_json::from_slice(value).ok()
}

/// Whether a key may have all this asked. Files are looked up by who calls this.
pub(in crate::gateway) fn check(
    contents: Option<Contents>,
    caller: &Caller,
    provider: &Arc<Provider>,
) -> Result<Contents, Error> {
    let Some(contents) = contents else {
        let message = "What is in this file is not known here; upload it again, as a form with \
                       the part `file`.";
        return Err(Error::invalid(message));
    };
    if let Some(fault) = &contents.fault {
        return Err(Error::invalid(fault.clone()));
    }
    for model in contents.models.keys() {
        let name = format!("{}/{model}", provider.name);
        if !caller.may_call(&name) || !caller.may_use(&provider.name, model) {
            let message = format!("This key may not use `{name}`, which the file names.");
            return Err(Error::new(Kind::NotAllowed, message));
        }
    }
    Ok(contents)
}

/// What a batch may come to at the most.
pub(in crate::gateway) fn demand(
    call: &Call,
    provider: &Arc<Provider>,
    contents: &Contents,
) -> Demand {
    let mut most = Demand { priced: true, ..Demand::default() };
    for (model, share) in &contents.models {
        let name = format!("{}/{model}", provider.name);
        let info = provider.model(model, call.house.config.models.get(&name));
        let usage = usage(*share, info.max_output);
        let price = info.price.as_ref();
        most.tokens = most.tokens.saturating_add(call.house.config.token_weights.count(&usage));
        most.nanos = most.nanos.saturating_add(price.map_or(0, |it| it.cost(&usage).nanos()));
        most.priced &= price.is_some();
    }
    most
}

fn usage(share: Share, max_output: Option<u64>) -> Usage {
    let open = share.open.saturating_mul(max_output.unwrap_or(USUAL_MOST).min(USUAL_MOST));
    let output = share.output.saturating_add(open);
    Usage { input: share.input, output, ..Usage::default() }
}
