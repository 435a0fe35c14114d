//! Fields read as loosely as can be: what one server leaves out, another sends empty, null or in
//! another type, and what cannot be read takes nothing of what stands beside it along.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{
    Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor, value,
};
use serde_json::Value;

/// More than this is no count of anything: a larger number is a mistake.
const MOST: f64 = 9_007_199_254_740_992.0;

/// A text, mostly; whatever else a server may put in its place.
#[derive(Debug, Default)]
pub(super) enum Said<'a> {
    #[default]
    Nothing,
    Text(Cow<'a, str>),
    /// A number, a list or an object.
    Other(Value),
}

/// A count of tokens. Some servers write it with a point, or guess: a part of one is one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "not negative, and not more than a float holds exactly"
)]
pub(super) fn tokens<'de, D: Deserializer<'de>>(input: D) -> Result<Option<u64>, D::Error> {
    let told = input.deserialize_any(Loosely(Number))?;
    Ok(told.filter(|number| (0.0..=MOST).contains(number)).map(|number| number.ceil() as u64))
}

/// A whole number: a place in a list.
#[expect(clippy::cast_possible_truncation, reason = "not more than a float holds exactly")]
pub(super) fn integer<'de, D: Deserializer<'de>>(input: D) -> Result<Option<i64>, D::Error> {
    let told = input.deserialize_any(Loosely(Number))?;
    Ok(told.filter(|number| number.abs() <= MOST).map(|number| number as i64))
}

/// A text of its own.
pub(super) fn text<'de, D: Deserializer<'de>>(input: D) -> Result<Option<String>, D::Error> {
    Ok(match Said::deserialize(input)? {
        Said::Text(text) => Some(text.into_owned()),
        Said::Nothing | Said::Other(_) => None,
    })
}

/// An object; what else there is counts as none.
pub(super) fn object<'de, D, T>(input: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    input.deserialize_any(Loosely(Object(PhantomData)))
}

/// The objects of a list; one that stands alone is a list of one.
pub(super) fn list<'de, D, T>(input: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    input.deserialize_any(Loosely(List(PhantomData)))
}

// === impl Said ===

impl Said<'_> {
    /// The text; empty if it is none.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Nothing | Self::Other(_) => "",
        }
    }

    /// The text, or the JSON text of what stands in its place.
    pub(super) fn json(&self) -> Cow<'_, str> {
        match self {
            Self::Other(value) => value.to_string().into(),
            Self::Nothing | Self::Text(_) => self.text().into(),
        }
    }

    /// The text that a model has written. Cloudflare reads it as JSON where it is some: a piece `6`
    /// is a number, and an answer in JSON an object. A list has parts, and no text of its own.
    pub(super) fn spoken(&self) -> Cow<'_, str> {
        match self {
            Self::Other(Value::Array(_)) => "".into(),
            Self::Nothing | Self::Text(_) | Self::Other(_) => self.json(),
        }
    }

    pub(super) fn list(&self) -> &[Value] {
        match self {
            Self::Other(Value::Array(list)) => list,
            Self::Nothing | Self::Text(_) | Self::Other(_) => &[],
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Said<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Listener)
    }
}

struct Listener;

impl<'de> Visitor<'de> for Listener {
    type Value = Said<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Said<'de>, E> {
        Ok(Said::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Said<'de>, E> {
        Ok(Said::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E: Error>(self) -> Result<Said<'de>, E> {
        Ok(Said::Nothing)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Said<'de>, E> {
        Ok(Said::Nothing)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Said<'de>, E> {
        Ok(Said::Other(number.into()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Said<'de>, E> {
        Ok(Said::Other(number.into()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Said<'de>, E> {
        Ok(Said::Other(number.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Said<'de>, A::Error> {
        Value::deserialize(value::SeqAccessDeserializer::new(list)).map(Said::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Said<'de>, A::Error> {
        Value::deserialize(value::MapAccessDeserializer::new(map)).map(Said::Other)
    }
}

/// What is taken of a value; what else may stand in its place counts as nothing.
trait Wanted<'de>: Sized {
    type Value: Default;

    fn number(self, _: f64) -> Self::Value {
        Self::Value::default()
    }

    fn list<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
        IgnoredAny.visit_seq(list).map(|_| Self::Value::default())
    }

    fn object<A: MapAccess<'de>>(self, object: A) -> Result<Self::Value, A::Error> {
        IgnoredAny.visit_map(object).map(|_| Self::Value::default())
    }
}

/// A number, or a text that is one.
struct Number;

impl Wanted<'_> for Number {
    type Value = Option<f64>;

    fn number(self, number: f64) -> Option<f64> {
        Some(number)
    }
}

struct Object<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Wanted<'de> for Object<T> {
    type Value = Option<T>;

    fn object<A: MapAccess<'de>>(self, object: A) -> Result<Option<T>, A::Error> {
        T::deserialize(value::MapAccessDeserializer::new(object)).map(Some)
    }
}

struct List<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Wanted<'de> for List<T> {
    type Value = Option<Vec<T>>;

    fn list<A: SeqAccess<'de>>(self, mut list: A) -> Result<Option<Vec<T>>, A::Error> {
        let mut all = Vec::new();
        while let Some(Entry(entry)) = list.next_element()? {
            all.extend(entry);
        }
        Ok(Some(all))
    }

    fn object<A: MapAccess<'de>>(self, object: A) -> Result<Option<Vec<T>>, A::Error> {
        Ok(Object(PhantomData).object(object)?.map(|one| vec![one]))
    }
}

struct Entry<T>(Option<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entry<T> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        object(input).map(Self)
    }
}

struct Loosely<W>(W);

impl<'de, W: Wanted<'de>> Visitor<'de> for Loosely<W> {
    type Value = W::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("anything")
    }

    fn visit_unit<E: Error>(self) -> Result<W::Value, E> {
        Ok(W::Value::default())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<W::Value, E> {
        Ok(W::Value::default())
    }

    #[expect(clippy::cast_precision_loss, reason = "what is not exact is no count")]
    fn visit_i64<E: Error>(self, number: i64) -> Result<W::Value, E> {
        Ok(self.0.number(number as f64))
    }

    #[expect(clippy::cast_precision_loss, reason = "what is not exact is no count")]
    fn visit_u64<E: Error>(self, number: u64) -> Result<W::Value, E> {
        Ok(self.0.number(number as f64))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<W::Value, E> {
        Ok(self.0.number(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<W::Value, E> {
        Ok(text.trim().parse().map_or_else(|_| W::Value::default(), |number| self.0.number(number)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<W::Value, A::Error> {
        self.0.list(list)
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<W::Value, A::Error> {
        self.0.object(object)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_count_is_a_whole_number_that_may_be_one() {
        for (told, count) in [
            (json!(35), Some(35)),
            (json!(35.0), Some(35)),
            (json!(35.7), Some(36)),
            (json!("35"), Some(35)),
            (json!(0), Some(0)),
            (json!(-1), None),
            (json!(-0.5), None),
            (json!(1e300), None),
            (json!(u64::MAX), None),
            (json!("NaN"), None),
            (json!("many"), None),
            (json!(true), None),
            (json!(null), None),
            (json!([1, [2]]), None),
            (json!({"a": {"b": 1}}), None),
        ] {
            assert_eq!(tokens(&told).unwrap(), count, "{told}");
            let text = told.to_string();
            let mut input = serde_json::Deserializer::from_str(&text);
            assert_eq!(tokens(&mut input).unwrap(), count, "{told}");
            input.end().unwrap();
        }
    }

    #[test]
    fn a_place_is_a_number_in_any_spelling() {
        for (told, at) in [
            (json!(1), Some(1)),
            (json!(-1), Some(-1)),
            (json!(1.0), Some(1)),
            (json!("1"), Some(1)),
            (json!("first"), None),
            (json!(1e300), None),
            (json!([]), None),
        ] {
            assert_eq!(integer(&told).unwrap(), at, "{told}");
        }
    }
}
