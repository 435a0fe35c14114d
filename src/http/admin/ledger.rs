//! What the ledger tells operators: calls, one call, and sums.

use std::cmp::Reverse;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use super::guard::reach;
use super::{AdminApi, Answer, Asked, missing, store_away};
use crate::access::Caller;
use crate::canon::{Attempt, Money, Outcome, Purpose, Usage};
use crate::http::json as answer;
use crate::store::{CallRow, Column, Cursor, Failure, Store, UsageRow};

/// What the journal has to be taken in before it is told without its last lines.
const CATCH_UP: Duration = Duration::from_secs(2);
/// What a report has to be made.
const READ: Duration = Duration::from_secs(30);
/// Lines of a report; a file has no such end.
const LINES: usize = 10_000;

pub(super) async fn calls(api: AdminApi, asked: Asked) -> Answer {
    let page = (asked.query.after::<Cursor>()?, asked.query.limit()?);
    let filter = asked.query.filter()?;
    let store = api.gateway.store();
    let is_whole = catch_up(store).await;
    let (rows, next) = read(store.calls(&reach(&asked.by), &filter, page)).await?;
    let data: Vec<Value> = rows.iter().map(shown).collect();
    let next = next.map(|next| next.to_string());
    Ok(answer(StatusCode::OK, &marked(json!({"data": data, "next": next}), is_whole)))
}

pub(super) async fn call(api: AdminApi, asked: Asked) -> Answer {
    let store = api.gateway.store();
    catch_up(store).await;
    match read(store.call(&reach(&asked.by), &asked.id)).await? {
        Some(row) => Ok(answer(StatusCode::OK, &shown(&row))),
        None => Err(missing("call", &asked.id)),
    }
}

pub(super) async fn usage(api: AdminApi, asked: Asked) -> Answer {
    let (groups, filter) = (asked.query.groups()?, asked.query.filter()?);
    let store = api.gateway.store();
    let is_whole = catch_up(store).await;
    let rows = read(store.usage(&reach(&asked.by), &groups, &filter)).await?;
    let data: Vec<Value> = rows.iter().map(|row| line(&groups, row)).collect();
    let truncated = rows.len() >= LINES;
    let told = json!({"data": data, "truncated": truncated});
    Ok(answer(StatusCode::OK, &marked(told, is_whole)))
}

/// What each model has used of one key's calls; `None` if nobody can say at the moment. And whether
/// that is all of it.
pub(in crate::http) async fn models(store: &Store, caller: &Caller) -> (Option<Vec<Value>>, bool) {
    let is_whole = catch_up(store).await;
    let groups = [Column::Provider, Column::Model, Column::Purpose, Column::Outcome];
    let filter = crate::store::Filter::default();
    // Users of one issuer of tokens share the name of a key, and know nothing of one another.
    let reach = match caller.user().filter(|_| caller.owner() != caller.key()) {
        Some(user) => crate::store::Reach::User(std::sync::Arc::clone(user)),
        None => crate::store::Reach::Key(std::sync::Arc::clone(caller.key())),
    };
    let Ok(rows) = timed(CATCH_UP, store.usage(&reach, &groups, &filter)).await else {
        return (None, false);
    };
    (Some(by_model(&rows)), is_whole)
}

/// The sums of each model, the dearest first, without what was asked on nobody's account. What calls
/// held that a crash cut off is no model's.
fn by_model(rows: &[UsageRow]) -> Vec<Value> {
    let mut models: Vec<(Option<String>, (u64, u64, Money))> = Vec::new();
    for row in rows {
        let [provider, model, Some(purpose), Some(outcome)] = row.group.as_slice() else {
            continue;
        };
        let name = provider.as_ref().zip(model.as_ref());
        let name = name.map(|(provider, model)| format!("{provider}/{model}"));
        // Others without a model were refused, or cost nothing.
        let is_cut_off = *outcome == Outcome::Internal.name() && row.estimated > 0;
        if *purpose == Purpose::Shadow.name() || (name.is_none() && !is_cut_off) {
            continue;
        }
        let calls_of_it = if name.is_some() { row.calls } else { row.estimated };
        let place = models.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
            models.push((name, Default::default()));
            models.len() - 1
        });
        let (_, (calls, tokens, cost)) = &mut models[place];
        *calls += calls_of_it;
        *tokens += row.usage.total();
        *cost = cost.saturating_add(row.cost);
    }
    models.sort_by_key(|(_, (.., cost))| Reverse(*cost));
    let told = models.into_iter().map(|(model, (calls, tokens, cost))| {
        json!({"model": model, "calls": calls, "tokens": tokens, "usd": cost.usd()})
    });
    told.collect()
}

/// Takes in the calls that ended before now. Whether that came to its end.
pub(super) async fn catch_up(store: &Store) -> bool {
    timed(CATCH_UP, store.flush()).await.is_ok()
}

/// The store's word, or that it is away.
pub(super) async fn read<T>(
    wanted: impl Future<Output = Result<T, Failure>>,
) -> Result<T, crate::error::Error> {
    timed(READ, wanted).await.map_err(|()| store_away())
}

async fn timed<T>(
    limit: Duration,
    wanted: impl Future<Output = Result<T, Failure>>,
) -> Result<T, ()> {
    match timeout(limit, wanted).await {
        Ok(Ok(told)) => Ok(told),
        Ok(Err(cause)) => {
            tracing::error!(%cause, "the store cannot be asked");
            Err(())
        }
        Err(_) => Err(()),
    }
}

/// Says so where the latest calls may be missing.
fn marked(mut told: Value, is_whole: bool) -> Value {
    if !is_whole {
        told["degraded"] = json!(true);
    }
    told
}

pub(super) fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

fn millis(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

/// One call as it is told.
pub(super) fn shown(row: &CallRow) -> Value {
    json!({
        "id": row.id,
        "at": time(row.at),
        "surface": row.surface,
        "stream": row.stream,
        "key": row.key,
        "team": row.team,
        "user": row.user,
        "org": row.org,
        "route": row.route,
        "agent": row.agent,
        "task": row.task,
        "provider": row.provider,
        "model": row.model,
        "outcome": row.outcome.name(),
        "status": row.status,
        "input_tokens": row.usage.input_total(),
        "output_tokens": row.usage.output,
        "cache_read_tokens": row.usage.cache_read,
        "cache_write_tokens": row.usage.cache_write + row.usage.cache_write_long,
        "reasoning_tokens": row.usage.reasoning,
        "counted_tokens": row.counted,
        "usage_source": row.usage_source.name(),
        "cost_usd": row.cost.map(Money::usd),
        "duration_ms": millis(row.duration),
        "first_token_ms": row.first_token.map(millis),
        "generation": row.generation,
        "cache": row.cache,
        "purpose": row.purpose,
        "tags": row.tags,
        "attempts": row.attempts.iter().map(attempt).collect::<Vec<Value>>(),
    })
}

fn attempt(attempt: &Attempt) -> Value {
    let mut told = json!({
        "provider": &*attempt.provider,
        "model": &*attempt.model,
        "outcome": attempt.outcome.name(),
        "status": attempt.status,
        "ms": millis(attempt.elapsed),
    });
    // Only of one that another followed: the last is what the call itself tells.
    if let Some(usage) = &attempt.usage {
        told["input_tokens"] = json!(usage.input_total());
        told["output_tokens"] = json!(usage.output);
        told["cost_usd"] = json!(attempt.cost.map(Money::usd));
    }
    told
}

/// One line of a report: what its calls have in common, and their sums.
pub(super) fn line(groups: &[Column], row: &UsageRow) -> Value {
    let group = groups.iter().zip(&row.group);
    let mut told: Map<String, Value> =
        group.map(|(column, value)| (column.name().to_owned(), json!(value))).collect();
    told.extend(sums(row).map(|(name, sum)| (name.to_owned(), sum)));
    Value::Object(told)
}

/// The names of all sums, in the order of `line`.
pub(super) fn sum_names() -> Vec<&'static str> {
    let none = UsageRow {
        group: Vec::new(),
        calls: 0,
        estimated: 0,
        unpriced: 0,
        usage: Usage::default(),
        cost: Money::default(),
    };
    sums(&none).map(|(name, _)| name).into()
}

fn sums(row: &UsageRow) -> [(&'static str, Value); 10] {
    let usage = &row.usage;
    [
        ("calls", json!(row.calls)),
        ("estimated_calls", json!(row.estimated)),
        ("unpriced_calls", json!(row.unpriced)),
        ("input_tokens", json!(usage.input_total())),
        ("output_tokens", json!(usage.output)),
        ("cache_read_tokens", json!(usage.cache_read)),
        ("cache_write_tokens", json!(usage.cache_write + usage.cache_write_long)),
        ("reasoning_tokens", json!(usage.reasoning)),
        ("total_tokens", json!(usage.total())),
        ("cost_usd", json!(row.cost.usd())),
    ]
}
