//! A text with places for what is another each time: the id of a call, and when it came.

use bytes::Bytes;

/// One text, ready but for what stands in its places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: Bytes,
    /// Where each begins.
    places: Box<[(usize, Place)]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Id,
    Created,
}

/// Ids and times that differ in each of their characters.
const PROBES: [(&str, u64); 2] = [
    ("00000000000000000000000000000000", 1_111_111_111),
    ("ffffffffffffffffffffffffffffffff", 2_222_222_222),
];
const CREATED: [&str; 2] = ["1111111111", "2222222222"];

// === impl Template ===

impl Template {
    /// What `write` writes for a call with any id of 32 digits and time of 10, found by having it
    /// write twice. `None` if more than these two is another each time, or they are not to be
    /// recognised.
    pub fn find(mut write: impl FnMut(&str, u64) -> Option<Vec<u8>>) -> Option<Self> {
        let [(id, created), (other_id, other_created)] = PROBES;
        let (text, other) = (write(id, created)?, write(other_id, other_created)?);
        if text.len() != other.len() {
            return None;
        }
        let (mut places, mut at) = (Vec::new(), 0);
        while let Some(next) = text[at..].iter().zip(&other[at..]).position(|(a, b)| a != b) {
            at += next;
            let is_here = |place: &Place| {
                let [first, second] = place.probes();
                text[at..].starts_with(first) && other[at..].starts_with(second)
            };
            let place = [Place::Id, Place::Created].into_iter().find(is_here)?;
            places.push((at, place));
            at += place.probes()[0].len();
        }
        Some(Self { text: text.into(), places: places.into() })
    }

    /// The text for this call; `None` if something of it has another length.
    pub fn fill(&self, id: &str, created: u64) -> Option<Bytes> {
        if self.places.is_empty() {
            return Some(self.text.clone());
        }
        let created = created.to_string();
        let mut text = self.text.to_vec();
        for (at, place) in &self.places {
            let value = match place {
                Place::Id => id,
                Place::Created => &created,
            };
            let room = text.get_mut(*at..at + place.probes()[0].len())?;
            if room.len() != value.len() {
                return None;
            }
            room.copy_from_slice(value.as_bytes());
        }
        Some(text.into())
    }

    pub(super) fn len(&self) -> usize {
        self.text.len() + self.places.len() * size_of::<(usize, Place)>()
    }
}

impl Place {
    fn probes(self) -> [&'static [u8]; 2] {
        match self {
            Self::Id => PROBES.map(|(id, _)| id.as_bytes()),
            Self::Created => CREATED.map(str::as_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_written_once_is_written_for_another_call_as_if_anew(
            pieces in prop::collection::vec(("[0-9a-f \\n]{0,40}", 0..3_u8), 0..6),
            id in "[0-9a-f]{32}",
            created in 1_000_000_000..10_000_000_000_u64,
        ) {
            let write = |id: &str, created: u64| {
                let mut text = String::new();
                for (piece, place) in &pieces {
                    text.push_str(piece);
                    match place {
                        0 => text.push_str(id),
                        1 => text.push_str(&created.to_string()),
                        _ => {}
                    }
                }
                Some(text.into_bytes())
            };
            let template = Template::find(write).unwrap();
            prop_assert_eq!(template.fill(&id, created).map(Vec::from), write(&id, created));
        }
    }

    #[test]
    fn what_is_another_in_more_than_id_and_time_is_no_template() {
        let mut count = 0;
        let counted = |id: &str, _| {
            count += 1;
            Some(format!("{id} {count}").into_bytes())
        };
        assert_eq!(Template::find(counted), None);
        assert_eq!(Template::find(|id, _| Some(id[..24].into())), None);
        assert_eq!(Template::find(|_, created| Some((created / 10).to_string().into())), None);
        assert_eq!(Template::find(|_, _| None), None);
        let template = Template::find(|_, created| Some(created.to_string().into()));
        assert_eq!(template.and_then(|template| template.fill("", 1)), None);
    }
}
