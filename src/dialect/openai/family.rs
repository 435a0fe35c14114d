//! What OpenAI's models that think refuse to be told, by their names.

use crate::canon::{ChatRequest, Effort, Sampling};

const THINKERS: &[&str] = &["o1", "o3", "o4", "gpt-5", "gpt-6", "gpt-oss", "codex"];

/// The name without the maker's before it.
fn bare(model: &str) -> &str {
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
    fn those_that_refuse_max_tokens_are_known_by_name() {
        for model in ["o1", "o3-mini", "gpt-5-nano", "gpt-5.4", "gpt-5-chat-latest"] {
            assert!(refuses_max_tokens(model), "{model}");
        }
        for model in ["gpt-4o", "gpt-oss-20b", "mistral-large", "o"] {
            assert!(!refuses_max_tokens(model), "{model}");
        }
    }
}
