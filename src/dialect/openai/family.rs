//! What OpenAI's models refuse to be told, in which words, and by which of its two APIs they are
//! asked, by their names.

use crate::canon::{ChatRequest, Effort, Sampling};

const THINKERS: &[&str] = &["o1", "o3", "o4", "gpt-5", "gpt-6", "gpt-oss", "codex"];

/// Words for how much a model is to think.
pub type Words = &'static [&'static str];

const LOW_UP: Words = &["low", "medium", "high"];
const LOW_TO_XHIGH: Words = &["low", "medium", "high", "xhigh"];
const PRO: Words = &["medium", "high", "xhigh"];
const MEDIUM: Words = &["medium"];

/// The words that models take, by what their names begin with; the first row that fits counts, and
/// the last fits what is newer.
pub const EFFORTS: &[(&str, Words)] = &[
    ("gpt-5-pro", &["high"]),
    ("gpt-5-codex", LOW_UP),
    ("gpt-5-chat", &[]),
    ("gpt-5.1-codex-max", LOW_TO_XHIGH),
    ("gpt-5.1-codex", LOW_UP),
    ("gpt-5.1-chat", MEDIUM),
    ("gpt-5.1", &["none", "low", "medium", "high"]),
    ("gpt-5.2-chat", MEDIUM),
    ("gpt-5.2-codex", LOW_TO_XHIGH),
    ("gpt-5.2-pro", PRO),
    ("gpt-5.3-chat", MEDIUM),
    ("gpt-5.3-codex", LOW_TO_XHIGH),
    ("gpt-5.4-pro", PRO),
    ("gpt-5.5-pro", PRO),
    ("gpt-5.", NEWEST),
    ("gpt-5", &["minimal", "low", "medium", "high"]),
    ("gpt-6-astra", LOW_TO_XHIGH),
    ("gpt-6.1-sol", LOW_TO_XHIGH),
    ("gpt-6.2-astra", LOW_TO_XHIGH),
    ("gpt-oss", LOW_UP),
    ("o3-deep-research", MEDIUM),
    ("o4-mini-deep-research", MEDIUM),
    ("computer-use", MEDIUM),
    ("codex-mini", LOW_UP),
    ("o1", LOW_UP),
    ("o3", LOW_UP),
    ("o4", LOW_UP),
    ("", NEWEST),
];
const NEWEST: Words = &["none", "low", "medium", "high", "xhigh"];

/// Whether a model takes `max`, which only the API of responses knows.
pub fn takes_max(model: &str) -> bool {
    version(bare(model)) >= Some((5, 6))
}

/// The name without the maker's before it.
pub fn bare(model: &str) -> &str {
    model.rsplit('/').next().unwrap_or(model)
}

/// Whether a model thinks, by its name: the others refuse to be asked for their thoughts.
pub fn thinks(model: &str) -> bool {
    let name = bare(model);
    THINKERS.iter().any(|prefix| name.starts_with(prefix)) && !name.contains("-chat")
}

/// Whether a model refuses `max_tokens`: those that think, and what came with them.
pub fn refuses_max_tokens(model: &str) -> bool {
    let name = bare(model);
    !name.starts_with("gpt-oss") && THINKERS.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether a model is asked by the API of responses alone.
pub fn needs_responses(model: &str) -> bool {
    const KINDS: [&str; 3] = ["codex", "pro", "research"];
    let is_theirs = THINKERS.iter().any(|prefix| model.starts_with(prefix));
    let of_a_kind = || model.split('-').any(|word| KINDS.contains(&word));
    is_theirs && !model.starts_with("gpt-oss") && of_a_kind() || model.starts_with("computer-use")
}

/// Whether a model thinks and calls tools together by the API of responses only, as those of
/// GPT-5.4 and later do.
pub fn prefers_responses(model: &str) -> bool {
    needs_responses(model) || version(model) >= Some((5, 4)) && thinks(model)
}

/// Whether chat completions would refuse this question because such a model would think for it:
/// since GPT-5.5 they do unless they are told not to.
pub fn outgrows_chat(model: &str, request: &ChatRequest) -> bool {
    if request.tools.is_empty() || !prefers_responses(model) {
        return false;
    }
    let asked = request.reasoning.as_ref();
    match asked.and_then(|it| it.effort.or_else(|| it.budget.map(Effort::of_budget))) {
        Some(effort) => effort != Effort::None,
        None => version(model) >= Some((5, 5)),
    }
}

/// Of `gpt-5.4-mini`: 5 and 4.
fn version(model: &str) -> Option<(u32, u32)> {
    let number = model.strip_prefix("gpt-")?.split('-').next()?;
    let (major, minor) = number.split_once('.').unwrap_or((number, "0"));
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Whether a model takes what bends its choice of words while it does not think, and whether that
/// is what it does unless asked to think.
fn idles(name: &str) -> Option<bool> {
    let (version, rest) = name.strip_prefix("gpt-")?.split_once('.')?;
    let minor = rest.split('-').next()?;
    let plain = !["codex", "pro"].iter().any(|kind| rest.contains(kind));
    let known = version == "5" && ["1", "2", "4"].contains(&minor);
    plain.then_some(known)
}

/// What is said of sampling without what the model refuses, and the names of what is lost so.
pub fn spared(model: &str, request: &ChatRequest) -> (Sampling, Vec<&'static str>) {
    let mut said = request.sampling.clone();
    let name = bare(model);
    if !thinks(name) || name.starts_with("gpt-oss") {
        return (said, Vec::new());
    }
    let asked = request.reasoning.as_ref();
    let effort = asked.and_then(|it| it.effort.or_else(|| it.budget.map(Effort::of_budget)));
    let is_idle = idles(name).is_some_and(|idle| effort.map_or(idle, |it| it == Effort::None));
    let mut lost = Vec::new();
    // What is as it is anyway can be left out without a word.
    let mut leave = |value: &mut Option<f64>, field, usual: f64| {
        let telling = value.take().is_some_and(|value| (value - usual).abs() > f64::EPSILON);
        lost.extend(telling.then_some(field));
    };
    leave(&mut said.frequency_penalty, "frequency_penalty", 0.0);
    leave(&mut said.presence_penalty, "presence_penalty", 0.0);
    if !is_idle {
        leave(&mut said.temperature, "temperature", 1.0);
        leave(&mut said.top_p, "top_p", 1.0);
        lost.extend(said.logprobs.take().map(|_| "logprobs"));
        // The first of them still stop where they are told to.
        let stops = !name.starts_with("o1") && !std::mem::take(&mut said.stop).is_empty();
        lost.extend(stops.then_some("stop"));
    }
    lost.extend(said.logit_bias.take().map(|_| "logit_bias"));
    (said, lost)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canon::Thinking;

    fn lost(model: &str, effort: Option<Effort>, sampling: Sampling) -> Vec<&'static str> {
        let reasoning = effort.map(|it| Thinking { effort: Some(it), ..Thinking::default() });
        spared(model, &ChatRequest { sampling, reasoning, ..ChatRequest::default() }).1
    }

    #[test]
    fn a_model_that_thinks_is_not_told_how_to_choose_its_words() {
        let all = Sampling {
            temperature: Some(0.5),
            top_p: Some(0.9),
            presence_penalty: Some(0.1),
            stop: vec!["x".into()],
            ..Sampling::default()
        };
        let every = ["presence_penalty", "temperature", "top_p", "stop"];
        for model in ["gpt-5-mini", "o3", "o4-mini", "openai/gpt-5", "gpt-5.2-pro", "gpt-5.5"] {
            assert_eq!(lost(model, None, all.clone()), every, "{model}");
        }
        assert_eq!(lost("o1", None, all.clone()), every[..3]);
        assert_eq!(lost("gpt-5.2", None, all.clone()), every[..1]);
        assert_eq!(lost("gpt-5.5", Some(Effort::None), all.clone()), every[..1]);
        assert_eq!(lost("gpt-5.2", Some(Effort::Low), all.clone()), every);
        for model in ["gpt-4.1", "gpt-5-chat-latest", "gpt-oss-120b", "command-r"] {
            assert!(lost(model, None, all.clone()).is_empty(), "{model}");
        }
    }

    #[test]
    fn what_says_nothing_new_is_left_out_without_a_word() {
        let usual = Sampling {
            temperature: Some(1.0),
            top_p: Some(1.0),
            frequency_penalty: Some(0.0),
            ..Sampling::default()
        };
        let request = ChatRequest { sampling: usual, ..ChatRequest::default() };
        assert_eq!(spared("gpt-5", &request), (Sampling::default(), Vec::new()));
    }

    #[test]
    fn those_that_are_asked_by_the_newer_api_are_known_by_name() {
        for model in [
            "gpt-5-codex",
            "gpt-5.1-codex-max",
            "gpt-5.3-codex",
            "codex-mini-latest",
            "gpt-5-pro-2025-10-06",
            "o3-pro",
            "o4-mini-deep-research",
            "computer-use-preview",
        ] {
            assert!(needs_responses(model) && prefers_responses(model), "{model}");
        }
        for model in ["gpt-5.4", "gpt-5.4-mini", "gpt-5.6-2026-09-01", "gpt-6", "gpt-6.1"] {
            assert!(!needs_responses(model) && prefers_responses(model), "{model}");
        }
        for model in ["gpt-4o", "gpt-5", "gpt-5.2", "o3", "gpt-5.5-chat-latest", "gpt-oss-120b"] {
            assert!(!prefers_responses(model), "{model}");
        }
        assert!(!prefers_responses("openai/gpt-5.5"), "somebody else's model of that name");
    }

    #[test]
    fn tools_of_a_model_that_thinks_have_outgrown_chat_completions() {
        let outgrows = |model: &str, effort: Option<Effort>, tools: usize| {
            let (description, format) = (None, None);
            let tool = crate::canon::Tool::Custom { name: "x".to_owned(), description, format };
            let tools = vec![tool; tools];
            let reasoning = effort.map(|it| Thinking { effort: Some(it), ..Thinking::default() });
            outgrows_chat(model, &ChatRequest { tools, reasoning, ..ChatRequest::default() })
        };
        for (model, effort) in
            [("gpt-5.4", Some(Effort::Low)), ("gpt-5.5", None), ("gpt-6", Some(Effort::High))]
        {
            assert!(outgrows(model, effort, 1), "{model}");
            assert!(!outgrows(model, effort, 0), "{model} without tools");
        }
        for (model, effort) in
            [("gpt-5.4", None), ("gpt-5.5", Some(Effort::None)), ("gpt-5.2", Some(Effort::Low))]
        {
            assert!(!outgrows(model, effort, 1), "{model}");
        }
    }

    #[test]
    fn those_that_refuse_max_tokens_are_known_by_name() {
        for model in ["o1", "o3-mini", "gpt-5-nano", "gpt-5.4", "gpt-5-chat-latest"] {
            assert!(refuses_max_tokens(model), "{model}");
        }
        for model in ["gpt-4o", "gpt-oss-20b", "mistral-large", "o"] {
            assert!(!refuses_max_tokens(model), "{model}");
        }
    }
}
