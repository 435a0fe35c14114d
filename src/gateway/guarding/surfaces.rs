//! What guards can read of the calls that come in by each door. What they cannot read does not get
//! past a guard that would act.

use super::{Guarding, Inputs};
use crate::canon::{Relay, Surface};
use crate::config::Stage;
use crate::error::{Error, Kind};
use crate::gateway::arrival::Question;
use crate::gateway::call::Call;
use crate::gateway::relayed::Relayed;
use crate::guard::Chain;

/// How the texts of a question are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// By reading it into our own words.
    Chat,
    /// Each string of the body that is no name.
    Strings,
    /// Not at all: sounds, pictures, files, state of a provider.
    Sealed,
}

/// How the texts of an answer are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answered {
    Chat,
    /// There are none: vectors, scores, counts, sounds of what stands in the question.
    Nothing,
    Sealed,
}

/// What comes in by one door.
struct Row(Surface, Asked, Answered);

const TABLE: [Row; 22] = [
    Row(Surface::Chat, Asked::Chat, Answered::Chat),
    Row(Surface::Responses, Asked::Chat, Answered::Chat),
    Row(Surface::Messages, Asked::Chat, Answered::Chat),
    Row(Surface::Generate, Asked::Chat, Answered::Chat),
    Row(Surface::GenerateArray, Asked::Chat, Answered::Chat),
    Row(Surface::Completions, Asked::Strings, Answered::Chat),
    Row(Surface::CountTokens, Asked::Chat, Answered::Nothing),
    Row(Surface::GoogleCountTokens, Asked::Chat, Answered::Nothing),
    Row(Surface::InputTokens, Asked::Chat, Answered::Nothing),
    Row(Surface::Embeddings, Asked::Strings, Answered::Nothing),
    Row(Surface::GoogleEmbeddings, Asked::Strings, Answered::Nothing),
    Row(Surface::Speech, Asked::Strings, Answered::Nothing),
    Row(Surface::Moderations, Asked::Strings, Answered::Nothing),
    Row(Surface::Rerank, Asked::Strings, Answered::Nothing),
    // Some models tell in which words they have put the question.
    Row(Surface::Images, Asked::Strings, Answered::Sealed),
    Row(Surface::Transcriptions, Asked::Sealed, Answered::Sealed),
    Row(Surface::Compact, Asked::Sealed, Answered::Sealed),
    Row(Surface::Files, Asked::Sealed, Answered::Sealed),
    Row(Surface::Batches, Asked::Sealed, Answered::Sealed),
    Row(Surface::Turn, Asked::Chat, Answered::Chat),
    Row(Surface::Run, Asked::Chat, Answered::Chat),
    Row(Surface::Tool, Asked::Chat, Answered::Chat),
];

fn row(surface: Surface) -> (Asked, Answered) {
    let row = TABLE.iter().find(|row| row.0 == surface);
    row.map_or((Asked::Sealed, Answered::Sealed), |row| (row.1, row.2))
}

/// Whether answers have texts that can be read.
pub(super) fn has_answer(surface: Surface) -> bool {
    row(surface).1 == Answered::Chat
}

/// How the texts of this question are found. The error says that guards of this call cannot look at
/// it, or could not look at its answer.
pub(super) fn check(
    guarding: &Guarding,
    call: &Call,
    question: &Question,
    inputs: &Inputs,
) -> Result<Asked, Error> {
    let (asked, answered) = row(call.surface());
    let is_form = question.relayed.as_ref().is_some_and(|relayed: &Relayed| !relayed.is_json());
    let asked = if is_form { Asked::Sealed } else { asked };
    if asked == Asked::Sealed {
        seal(guarding, &inputs.input, Stage::Input)?;
        seal(guarding, &inputs.results, Stage::ToolResults)?;
    }
    if answered == Answered::Sealed {
        seal(guarding, &guarding.output, Stage::Output)?;
        seal(guarding, &guarding.tool_args, Stage::ToolArgs)?;
    }
    Ok(asked)
}

/// What these guards cannot read is refused for the sake of those that would act, and noted for
/// that of the others.
pub(super) fn seal(guarding: &Guarding, chain: &Chain, stage: Stage) -> Result<(), Error> {
    if let Some(guard) = chain.all().find(|guard| guard.acts()) {
        let (name, stage) = (&guard.name, stage.name());
        let message = format!(
            "This cannot be had here: the guard `{name}` (stage `{stage}`) holds for the call, and \
             cannot look at it."
        );
        return Err(Error::new(Kind::Unsupported, message));
    }
    guarding.said.gather(chain.all().map(|guard| guard.skips(stage)));
    Ok(())
}

/// What is in files and batches no guard can see.
pub(in crate::gateway) fn refuse_objects(call: &mut Call, relay: Relay) -> Result<(), Error> {
    let bears = matches!(relay, Relay::UploadFile | Relay::FileContent | Relay::CreateBatch);
    if !bears || call.guard_lists(&[]).iter().all(|list| list.is_empty()) {
        return Ok(());
    }
    let mut guarding = Box::<Guarding>::default();
    if let Some(inputs) = guarding.add(call, &[])? {
        seal(&guarding, &inputs.input, Stage::Input)?;
        seal(&guarding, &inputs.results, Stage::ToolResults)?;
        seal(&guarding, &guarding.output, Stage::Output)?;
        seal(&guarding, &guarding.tool_args, Stage::ToolArgs)?;
    }
    call.guarding = Some(guarding);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_for_every_door_by_which_something_is_asked() {
        for surface in Surface::ALL {
            let rows = TABLE.iter().filter(|row| row.0 == surface).count();
            assert_eq!(rows, usize::from(surface != Surface::Explain), "{surface:?}");
            if surface.is_chat() {
                assert_eq!(row(surface), (Asked::Chat, Answered::Chat), "{surface:?}");
            }
        }
    }
}
