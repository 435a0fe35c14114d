//! What a question demands of its target, found out only where targets differ in it.

use super::arrival::Question;
use super::call::Call;
use super::chain::Chain;
use crate::canon::{
    ChatRequest, Content, Dialect, Effort, Feature, FeatureSet, Format, MediaKind, Tool,
};
use crate::dialect::estimate;
use crate::dialect::marks::{Mark, has};
use crate::route::plan::Needs;

/// Bytes that stand in every question with such a need, in whatever dialect. A word too many costs
/// a look at the question, nothing else.
const MARKS: &[(Feature, &[Mark])] = &[
    (Feature::Tools, &[has(&["\"tools\""]), has(&["\"toolConfig\""]), has(&["\"functions\""])]),
    (Feature::Schema, &[has(&["\"json_schema\""]), has(&["chema\""]), has(&["\"output_format\""])]),
    (Feature::Vision, &[has(&["image"])]),
    (Feature::AudioIn, &[has(&["audio"])]),
    (
        Feature::Pdf,
        &[
            has(&["\"file\""]),
            has(&["\"document\""]),
            has(&["\"input_file\""]),
            has(&["application/pdf"]),
        ],
    ),
    (Feature::Reasoning, &[has(&["\"reasoning"]), has(&["\"thinking"])]),
];

/// Fewer bytes never make a token: a question of `n` bytes has at most `n / 2` tokens.
const FEWEST_BYTES: u64 = 2;

impl Chain {
    /// What this question demands, as far as the targets of the route differ in it.
    pub(super) async fn needs(&self, call: &Call, question: &Question) -> Needs {
        let mut needs = Needs::default();
        if !call.surface().is_chat() {
            return needs;
        }
        let most = question.payload.len() as u64 / FEWEST_BYTES;
        let long = self.smallest_window.is_some_and(|window| most > window);
        // What none of them can is asked of them all the same: the provider has the last word.
        let wanted =
            if self.wishes.strict { self.lacking } else { self.lacking.but(self.impossible) };
        let marked = !wanted.is_empty()
            && MARKS.iter().any(|(feature, marks)| {
                wanted.contains(*feature) && marks.iter().any(|mark| question.bears(mark))
            });
        if !long && !marked && !question.is_own() {
            return needs;
        }
        Box::pin(question.understand(call)).await;
        let Ok(asked) = question.chat() else { return needs };
        needs.features = features(&asked.request) & wanted;
        needs.tokens = estimate::tokens(&asked.request, Dialect::Chat, None);
        needs
    }
}

/// What a target must be able to do to answer this.
pub(super) fn features(request: &ChatRequest) -> FeatureSet {
    let mut features = FeatureSet::default();
    if request.tools.iter().any(|tool| matches!(tool, Tool::Function { .. })) {
        features |= Feature::Tools;
    }
    if matches!(request.format, Format::JsonSchema { .. }) {
        features |= Feature::Schema;
    }
    let effort = request.reasoning.as_ref();
    if effort.is_some_and(|thinking| thinking.effort != Some(Effort::None)) {
        features |= Feature::Reasoning;
    }
    for part in request.messages.iter().flat_map(|message| &message.parts) {
        if let Content::Media(media) = &part.content {
            features |= match media.kind {
                MediaKind::Image => Feature::Vision,
                MediaKind::Audio => Feature::AudioIn,
                MediaKind::Document => Feature::Pdf,
                MediaKind::Video => continue,
            };
        }
    }
    features
}
