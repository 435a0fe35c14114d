//! Attempts to turn a model against its instructions.

use super::Engine;

/// A reader that objects from this score on, in thousandths.
pub(super) fn engine(_threshold_permille: u32) -> Result<Engine, String> {
    Err("guards of the kind \"injection\" are not part of this build".to_owned())
}
