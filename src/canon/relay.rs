//! The questions that are passed on to a provider as they are: media, moderation, files, batches.

use super::Surface;

/// One such question, by what OpenAI's API calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Relay {
    ImageGeneration,
    ImageEdit,
    ImageVariation,
    Speech,
    Transcription,
    Translation,
    Moderation,
    Rerank,
    UploadFile,
    ListFiles,
    File,
    DeleteFile,
    FileContent,
    CreateBatch,
    ListBatches,
    Batch,
    CancelBatch,
}

/// A question, the surface it is counted under, its method and its path behind the base URL. In a
/// path `{id}` is the object asked for.
struct Row(Relay, Surface, &'static str, &'static str);

const TABLE: &[Row] = &[
    Row(Relay::ImageGeneration, Surface::Images, "POST", "/images/generations"),
    Row(Relay::ImageEdit, Surface::Images, "POST", "/images/edits"),
    Row(Relay::ImageVariation, Surface::Images, "POST", "/images/variations"),
    Row(Relay::Speech, Surface::Speech, "POST", "/audio/speech"),
    Row(Relay::Transcription, Surface::Transcriptions, "POST", "/audio/transcriptions"),
    Row(Relay::Translation, Surface::Transcriptions, "POST", "/audio/translations"),
    Row(Relay::Moderation, Surface::Moderations, "POST", "/moderations"),
    Row(Relay::Rerank, Surface::Rerank, "POST", "/rerank"),
    Row(Relay::UploadFile, Surface::Files, "POST", "/files"),
    Row(Relay::ListFiles, Surface::Files, "GET", "/files"),
    Row(Relay::File, Surface::Files, "GET", "/files/{id}"),
    Row(Relay::DeleteFile, Surface::Files, "DELETE", "/files/{id}"),
    Row(Relay::FileContent, Surface::Files, "GET", "/files/{id}/content"),
    Row(Relay::CreateBatch, Surface::Batches, "POST", "/batches"),
    Row(Relay::ListBatches, Surface::Batches, "GET", "/batches"),
    Row(Relay::Batch, Surface::Batches, "GET", "/batches/{id}"),
    Row(Relay::CancelBatch, Surface::Batches, "POST", "/batches/{id}/cancel"),
];

// === impl Relay ===

impl Relay {
    /// All of them, in the order of the table.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.0)
    }

    fn row(self) -> &'static Row {
        // The table names every one (tested), so the fallback is never met.
        TABLE.iter().find(|row| row.0 == self).unwrap_or(&TABLE[0])
    }

    /// What it is counted under.
    pub fn surface(self) -> Surface {
        self.row().1
    }

    pub fn method(self) -> &'static str {
        self.row().2
    }

    /// Its path behind the base URL, in which `{id}` is the object asked for.
    pub fn path(self) -> &'static str {
        self.row().3
    }

    /// The one of its kind by which a provider is said to have them all.
    #[must_use]
    pub fn of_a_kind(self) -> Self {
        match self.surface() {
            Surface::Files => Self::UploadFile,
            Surface::Batches => Self::CreateBatch,
            _ => self,
        }
    }

    /// Whether the question names a model, and not an object that a provider keeps.
    pub fn has_model(self) -> bool {
        !matches!(self.surface(), Surface::Files | Surface::Batches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_question_stands_in_the_table_once() {
        for relay in Relay::all() {
            assert_eq!(TABLE.iter().filter(|row| row.0 == relay).count(), 1, "{relay:?}");
        }
        assert_eq!(TABLE.len(), Relay::CancelBatch as usize + 1);
    }
}
