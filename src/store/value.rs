//! What stands in statements and rows, whichever database they are of.

use std::borrow::Cow;
use std::sync::Arc;

use rusqlite::types::{ToSqlOutput, ValueRef};

/// What takes the place of a `$1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Null,
    Integer(i64),
    Text(Cow<'a, str>),
    Bytes(&'a [u8]),
}

/// What stands in one column of a row.
#[derive(Debug)]
pub(super) enum Cell {
    Null,
    /// A truth too.
    Integer(i64),
    Text(String),
    Bytes(Vec<u8>),
}

/// What a cell can be read as.
pub(super) trait Readable: Sized {
    fn read(cell: Cell) -> Option<Self>;
}

/// The values of a statement, in the order of their numbers.
macro_rules! values {
    ($($value:expr),* $(,)?) => {
        &$crate::store::value::row![$($value),*][..]
    };
}

/// The same, for those who gather the values of many rows.
macro_rules! row {
    ($($value:expr),* $(,)?) => {
        [$($crate::store::value::Value::from($value)),*]
    };
}

pub(super) use {row, values};

// === impl Readable ===

impl Readable for i64 {
    fn read(cell: Cell) -> Option<Self> {
        if let Cell::Integer(number) = cell { Some(number) } else { None }
    }
}

impl Readable for u16 {
    fn read(cell: Cell) -> Option<Self> {
        i64::read(cell)?.try_into().ok()
    }
}

impl Readable for bool {
    fn read(cell: Cell) -> Option<Self> {
        Some(i64::read(cell)? != 0)
    }
}

impl Readable for String {
    fn read(cell: Cell) -> Option<Self> {
        if let Cell::Text(text) = cell { Some(text) } else { None }
    }
}

impl Readable for Arc<str> {
    fn read(cell: Cell) -> Option<Self> {
        String::read(cell).map(Self::from)
    }
}

impl Readable for Vec<u8> {
    fn read(cell: Cell) -> Option<Self> {
        if let Cell::Bytes(bytes) = cell { Some(bytes) } else { None }
    }
}

impl<T: Readable> Readable for Option<T> {
    fn read(cell: Cell) -> Option<Self> {
        if matches!(cell, Cell::Null) { Some(None) } else { T::read(cell).map(Some) }
    }
}

// === impl Value ===

macro_rules! integers {
    ($($kind:ty),*) => {$(
        impl From<$kind> for Value<'_> {
            fn from(number: $kind) -> Self {
                Self::Integer(number.into())
            }
        }
    )*};
}

integers!(i64, u32, u16, bool);

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl<'a> From<Cow<'a, str>> for Value<'a> {
    fn from(text: Cow<'a, str>) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        text.as_str().into()
    }
}

impl<'a> From<&'a Arc<str>> for Value<'a> {
    fn from(text: &'a Arc<str>) -> Self {
        (**text).into()
    }
}

impl<'a> From<&'a Cow<'static, str>> for Value<'a> {
    fn from(text: &'a Cow<'static, str>) -> Self {
        (**text).into()
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<Option<i64>> for Value<'_> {
    fn from(number: Option<i64>) -> Self {
        number.map_or(Self::Null, Self::Integer)
    }
}

impl<'a> From<Option<&'a str>> for Value<'a> {
    fn from(text: Option<&'a str>) -> Self {
        text.map_or(Self::Null, Self::from)
    }
}

impl<'a> From<&'a Option<String>> for Value<'a> {
    fn from(text: &'a Option<String>) -> Self {
        text.as_deref().into()
    }
}

impl<'a> From<&'a Option<Arc<str>>> for Value<'a> {
    fn from(text: &'a Option<Arc<str>>) -> Self {
        text.as_deref().into()
    }
}

impl<'a> From<&'a Option<Cow<'static, str>>> for Value<'a> {
    fn from(text: &'a Option<Cow<'static, str>>) -> Self {
        text.as_deref().into()
    }
}

impl rusqlite::ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}
