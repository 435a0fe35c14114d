//! Guards look at a question: at all of its texts, before anybody else sees it.

use std::sync::Arc;

use serde_json::Value;

use super::asking::Asker;
use super::late::{Late, Pending};
use super::surfaces::{self, Asked};
use super::texts::{self, Place, Visit};
use super::{Guarding, Inputs, refusal};
use crate::canon::{ChatRequest, Surface};
use crate::config::{Mode, Stage};
use crate::error::{Error, Kind};
use crate::gateway::arrival::Question;
use crate::gateway::call::Call;
use crate::guard::{Arguments, Blocked, Chain, Filter, Scan};

/// What texts are looked for in.
enum Body<'a> {
    Chat(&'a mut ChatRequest),
    Strings(&'a mut Value),
}

/// One chain, and the surface of the call that it looks at.
type Look<'a> = (Stage, &'a Chain);

pub(super) async fn look(
    guarding: &mut Guarding,
    call: &Call,
    question: &mut Question,
    inputs: &Inputs,
) -> Result<(), Error> {
    let asked = surfaces::check(guarding, call, question, inputs)?;
    let mut looks: Vec<Look<'_>> =
        vec![(Stage::Input, &inputs.input), (Stage::ToolResults, &inputs.results)];
    let spoken = guarding.output.clone();
    if call.surface() == Surface::Speech {
        // What will be said stands in the question.
        looks.push((Stage::Output, &spoken));
    }
    looks.retain(|(_, chain)| !chain.is_empty());
    match asked {
        Asked::Chat => look_at_chat(guarding, call, question, &looks).await,
        Asked::Strings if !looks.is_empty() => {
            look_at_strings(guarding, call, question, &looks).await
        }
        Asked::Strings | Asked::Sealed => Ok(()),
    }
}

async fn look_at_chat(
    guarding: &mut Guarding,
    call: &Call,
    question: &mut Question,
    looks: &[Look<'_>],
) -> Result<(), Error> {
    if looks.is_empty() && !guarding.reads_answers() {
        return Ok(());
    }
    Box::pin(question.understand(call)).await;
    let model = question.envelope.model.clone();
    let request = question.request_mut().map_err(|misread| Error::invalid(misread.0.clone()))?;
    if request.audio.is_some() {
        surfaces::seal(guarding, &guarding.output, Stage::Output)?;
    }
    let asker = Asker::of(call, &model);
    let changed = look_at(guarding, call, asker, &mut Body::Chat(request), looks).await?;
    if changed {
        question.mark_rewritten();
    }
    Ok(())
}

async fn look_at_strings(
    guarding: &mut Guarding,
    call: &Call,
    question: &mut Question,
    looks: &[Look<'_>],
) -> Result<(), Error> {
    let mut body: Value = serde_json::from_slice(&question.payload.to_bytes())
        .map_err(|fault| Error::invalid(format!("The body cannot be read: {fault}.")))?;
    let cut = ["input", "prompt"].iter().any(|field| has_tokens(&body[field]));
    if cut && looks.iter().any(|(_, chain)| chain.acts()) {
        let message = "Texts that are cut into tokens cannot be looked at by the guards that hold \
                       for this call; send them as strings.";
        return Err(Error::new(Kind::Unsupported, message));
    }
    let asker = Asker::of(call, &question.envelope.model);
    let changed = look_at(guarding, call, asker, &mut Body::Strings(&mut body), looks).await?;
    if changed { question.replace(body.to_string().into()) } else { Ok(()) }
}

fn has_tokens(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| item.is_number() || has_tokens(item)),
        _ => false,
    }
}

/// All that is to be done for the texts of a question. Says whether they are others now.
async fn look_at(
    guarding: &mut Guarding,
    call: &Call,
    asker: Asker,
    body: &mut Body<'_>,
    looks: &[Look<'_>],
) -> Result<bool, Error> {
    let vault = Arc::clone(&guarding.vault);
    let avoided = body.visit(&mut |_, text| {
        vault.avoid(text);
        Ok(())
    });
    let mut changed =
        avoided.and_then(|()| sift(guarding, body, looks)).map_err(|blocked| refusal(&blocked))?;
    // To explain a call nothing is sent.
    if call.is_only_explained() || looks.iter().all(|(_, chain)| chain.remote().is_empty()) {
        return Ok(changed);
    }
    for (stage, chain) in looks {
        let said = ask(guarding, &asker, body, (*stage, chain)).await;
        changed |= said.map_err(|blocked| refusal(&blocked))?;
    }
    let mut late = guarding.late.take().unwrap_or_else(|| Late::new(asker, &guarding.said));
    for (stage, chain) in looks {
        let texts = body.said(*stage);
        let parallel = chain.remote().iter().filter(|guard| guard.mode == Mode::Parallel);
        late.add(parallel.map(|guard| Pending { guard: Arc::clone(guard), stage: *stage }), &texts);
    }
    guarding.late = Some(late).filter(|late| !late.is_empty());
    Ok(changed)
}

/// Past the guards that need not ask anybody.
fn sift(guarding: &Guarding, body: &mut Body<'_>, looks: &[Look<'_>]) -> Result<bool, Blocked> {
    let mut scans: Vec<(Stage, Scan)> =
        looks.iter().map(|(stage, chain)| (*stage, chain.scan(&guarding.vault))).collect();
    let mut changed = false;
    let sifted = body.visit(&mut |place, text| {
        for (_, scan) in scans.iter_mut().filter(|(stage, _)| place.is_for(*stage)) {
            changed |= pass(scan, place, text)?;
        }
        Ok(())
    });
    guarding.said.gather(scans.into_iter().flat_map(|(_, scan)| scan.into_verdicts()));
    sifted.map(|()| changed)
}

fn pass(scan: &mut Scan, place: Place, text: &mut String) -> Result<bool, Blocked> {
    if text.is_empty() {
        return Ok(false);
    }
    let passed = if place.json { Arguments::new(scan).whole(text)? } else { scan.whole(text)? };
    let changed = passed != *text;
    *text = passed;
    Ok(changed)
}

/// Past those that ask, one after the other.
async fn ask(
    guarding: &Guarding,
    asker: &Asker,
    body: &mut Body<'_>,
    (stage, chain): Look<'_>,
) -> Result<bool, Blocked> {
    let mut changed = false;
    for guard in chain.remote().iter().filter(|guard| guard.mode == Mode::Blocking) {
        let texts = body.said(stage);
        if texts.is_empty() {
            break;
        }
        let masked = asker.consult(guard, stage, &texts, &guarding.said).await?;
        if let Some(texts) = masked {
            body.say(stage, texts, &guard.name)?;
            changed = true;
        }
    }
    Ok(changed)
}

// === impl Place ===

impl Place {
    /// Whether the guards of this surface look here. What is asked for to be spoken is looked at as
    /// what is said.
    fn is_for(self, stage: Stage) -> bool {
        self.stage == stage || (stage == Stage::Output && self.stage == Stage::Input)
    }
}

// === impl Body ===

impl Body<'_> {
    fn visit(&mut self, visit: &mut Visit<'_>) -> Result<(), Blocked> {
        match self {
            Self::Chat(request) => texts::of_request(request, visit),
            Self::Strings(value) => texts::leaves(value, Place::said(Stage::Input), visit),
        }
    }

    /// What is said on a surface of the call.
    fn said(&mut self, stage: Stage) -> Vec<String> {
        let mut texts = Vec::new();
        let _ = self.visit(&mut |place, text| {
            if place.said && place.is_for(stage) && !text.is_empty() {
                texts.push(text.clone());
            }
            Ok(())
        });
        texts
    }

    /// Puts these in the place of what was said.
    fn say(&mut self, stage: Stage, texts: Vec<String>, guard: &str) -> Result<(), Blocked> {
        let mut new = texts.into_iter();
        self.visit(&mut |place, text| {
            if place.said && place.is_for(stage) && !text.is_empty() {
                *text = new.next().unwrap_or_default();
                texts::check(place, text, guard)?;
            }
            Ok(())
        })
    }
}
