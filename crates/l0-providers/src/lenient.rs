//! Lenient JSON: a field of an unexpected type is read as absent.
//!
//! "Compatible" providers send `null`, numbers for strings and objects for text, and repeat keys. A stream with
//! readable text must survive all of that. A payload therefore fails only if it is not a JSON object. Values borrow
//! from the payload where possible, and nothing goes through `serde_json::Value`.

use std::borrow::Cow;
use std::fmt;

use l0_core::Money;
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess,
    Visitor,
};
use serde_json::value::RawValue;

/// The methods of a [`Visitor`] that skip a value and return the default.
macro_rules! default_on {
    ($($kind:ident)*) => { $($crate::lenient::default_on!(@$kind);)* };
    (@bool) => {
        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
    };
    (@number) => {
        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
        fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
    };
    (@str) => {
        fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
    };
    (@null) => {
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
    };
    (@seq) => {
        fn visit_seq<A: serde::de::SeqAccess<'de>>(
            self,
            mut seq: A,
        ) -> Result<Self::Value, A::Error> {
            while seq.next_element::<serde::de::IgnoredAny>()?.is_some() {}
            Ok(Self::Value::default())
        }
    };
    (@map) => {
        fn visit_map<A: serde::de::MapAccess<'de>>(
            self,
            mut map: A,
        ) -> Result<Self::Value, A::Error> {
            while map
                .next_entry::<serde::de::IgnoredAny, serde::de::IgnoredAny>()?
                .is_some()
            {}
            Ok(Self::Value::default())
        }
    };
}
pub(crate) use default_on;

/// Describes what a visitor expects. Never printed, as a lenient visitor accepts every value.
pub(crate) fn anything(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("any value")
}

/// A string.
#[derive(Debug, Default)]
pub(crate) struct Text<'a>(pub(crate) Option<Cow<'a, str>>);

impl<'a> Text<'a> {
    /// Returns the string, unless it is empty.
    pub(crate) fn filled(self) -> Option<Cow<'a, str>> {
        self.0.filter(|text| !text.is_empty())
    }

    pub(crate) fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }

    /// Returns this text, or the other one if this one is empty.
    pub(crate) fn or(self, other: Self) -> Self {
        if self.as_str().is_empty() {
            other
        } else {
            self
        }
    }

    pub(crate) fn append(&mut self, more: Self) {
        match (&mut self.0, more.0) {
            (_, None) => {}
            (Some(text), Some(more)) => text.to_mut().push_str(&more),
            (none, more) => *none = more,
        }
    }
}

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                anything(f)
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Some(Cow::Borrowed(text))))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Some(Cow::Owned(text.to_owned()))))
            }
            default_on!(bool number null seq map);
        }
        deserializer.deserialize_any(V)
    }
}

/// A text: a string, an object with a string under a common name, or a list of these, joined.
#[derive(Debug, Default)]
pub(crate) struct Prose<'a>(pub(crate) Text<'a>);

impl Prose<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.as_str().is_empty()
    }
}

impl<'de> Fields<'de> for Prose<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "text" | "content" | "summary" | "thinking" | "reasoning" if self.is_empty() => {
                *self = map.next_value()?;
            }
            _ => skip(map)?,
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Prose<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Prose<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                anything(f)
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Prose(Text(Some(Cow::Borrowed(text)))))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Prose(Text(Some(Cow::Owned(text.to_owned())))))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let mut prose = Prose::default();
                read_map(&mut prose, map)?;
                Ok(prose)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut all = Prose::default();
                while let Some(Prose(text)) = seq.next_element()? {
                    all.0.append(text);
                }
                Ok(all)
            }
            default_on!(bool number null);
        }
        deserializer.deserialize_any(V)
    }
}

/// A string, or a number converted to a string: an error code.
#[derive(Debug, Default)]
pub(crate) struct Code<'a>(pub(crate) Option<Cow<'a, str>>);

impl Code<'_> {
    /// Returns the code if it is the HTTP status of a failed request.
    pub(crate) fn status(&self) -> Option<u16> {
        let status = self.0.as_deref()?.parse().ok()?;
        (400..600).contains(&status).then_some(status)
    }
}

impl<'de> Deserialize<'de> for Code<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Code<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                anything(f)
            }
            fn visit_borrowed_str<E>(self, code: &'de str) -> Result<Self::Value, E> {
                Ok(Code((!code.is_empty()).then_some(Cow::Borrowed(code))))
            }
            fn visit_str<E>(self, code: &str) -> Result<Self::Value, E> {
                Ok(Code(
                    (!code.is_empty()).then(|| Cow::Owned(code.to_owned())),
                ))
            }
            fn visit_i64<E>(self, code: i64) -> Result<Self::Value, E> {
                Ok(Code(Some(Cow::Owned(code.to_string()))))
            }
            fn visit_u64<E>(self, code: u64) -> Result<Self::Value, E> {
                Ok(Code(Some(Cow::Owned(code.to_string()))))
            }
            fn visit_f64<E>(self, code: f64) -> Result<Self::Value, E> {
                Ok(Code(Some(Cow::Owned(code.to_string()))))
            }
            default_on!(bool null seq map);
        }
        deserializer.deserialize_any(V)
    }
}

/// A tool call's arguments: a string of JSON, or JSON itself, kept as sent.
#[derive(Default)]
pub(crate) struct Arguments<'a>(pub(crate) Cow<'a, str>);

impl<'de> Deserialize<'de> for Arguments<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = <&RawValue>::deserialize(deserializer)?.get();
        Ok(Self(match json.as_bytes().first() {
            Some(b'{' | b'[') => Cow::Borrowed(json),
            _ => {
                let text: Text<'de> = serde_json::from_str(json).map_err(D::Error::custom)?;
                text.0.unwrap_or_default()
            }
        }))
    }
}

/// A non-negative integer.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Count(pub(crate) Option<u64>);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Count;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                anything(f)
            }
            fn visit_u64<E>(self, count: u64) -> Result<Self::Value, E> {
                Ok(Count(Some(count)))
            }
            fn visit_i64<E>(self, count: i64) -> Result<Self::Value, E> {
                Ok(Count(u64::try_from(count).ok()))
            }
            fn visit_f64<E>(self, count: f64) -> Result<Self::Value, E> {
                // Larger values saturate.
                let whole = count.fract() == 0.0 && count >= 0.0;
                Ok(Count(whole.then_some(count as u64)))
            }
            default_on!(bool str null seq map);
        }
        deserializer.deserialize_any(V)
    }
}

/// A cost in US dollars: a non-negative number.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Dollars(pub(crate) Option<Money>);

impl<'de> Deserialize<'de> for Dollars {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Dollars;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                anything(f)
            }
            fn visit_u64<E>(self, dollars: u64) -> Result<Self::Value, E> {
                Ok(Dollars(Some(Money::units(dollars))))
            }
            fn visit_i64<E>(self, dollars: i64) -> Result<Self::Value, E> {
                Ok(Dollars(u64::try_from(dollars).ok().map(Money::units)))
            }
            fn visit_f64<E>(self, dollars: f64) -> Result<Self::Value, E> {
                Ok(Dollars(Money::try_from(dollars).ok()))
            }
            default_on!(bool str null seq map);
        }
        deserializer.deserialize_any(V)
    }
}

/// A boolean; `false` for any other value.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Flag(pub(crate) bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Flag;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                anything(f)
            }
            fn visit_bool<E>(self, flag: bool) -> Result<Self::Value, E> {
                Ok(Flag(flag))
            }
            default_on!(number str null seq map);
        }
        deserializer.deserialize_any(V)
    }
}

/// The fields of an object that are read.
pub(crate) trait Fields<'de>: Default {
    /// Reads the value of `key` from `map`, or [`skip`]s it if the key is not needed.
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error>;
}

/// Skips the value of a key.
pub(crate) fn skip<'de, A: MapAccess<'de>>(map: &mut A) -> Result<(), A::Error> {
    map.next_value::<IgnoredAny>().map(|_| ())
}

/// An object of which only the presence matters.
#[derive(Debug, Default)]
pub(crate) struct Anything;

impl<'de> Fields<'de> for Anything {
    fn read<A: MapAccess<'de>>(&mut self, _: &str, map: &mut A) -> Result<(), A::Error> {
        skip(map)
    }
}

impl<'de, T: Fields<'de>> Fields<'de> for Box<T> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        (**self).read(key, map)
    }
}

/// Reads a whole map. For a repeated key, the last value counts.
pub(crate) fn read_map<'de, A: MapAccess<'de>>(
    fields: &mut impl Fields<'de>,
    mut map: A,
) -> Result<(), A::Error> {
    while let Some(key) = map.next_key::<Text<'de>>()? {
        fields.read(key.as_str(), &mut map)?;
    }
    Ok(())
}

/// Reads a text that is one object. Returns `true` if it is one.
pub(crate) fn read_fields<'de>(
    json: &'de str,
    fields: &mut impl Fields<'de>,
) -> serde_json::Result<bool> {
    struct V<'p, T>(&'p mut T);
    impl<'de, T: Fields<'de>> Visitor<'de> for V<'_, T> {
        type Value = bool;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            anything(f)
        }
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<bool, A::Error> {
            read_map(self.0, map)?;
            Ok(true)
        }
        default_on!(bool number str null seq);
    }
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let is_object = deserializer.deserialize_any(V(fields))?;
    deserializer.end()?;
    Ok(is_object)
}

/// The destination of a value. A payload's fields are large, and moving them between functions would take a third of
/// the time.
trait Place<'de> {
    fn fill<D: Deserializer<'de>>(&mut self, deserializer: D) -> Result<(), D::Error>;
}

/// Reads a value into its place.
struct To<'p, P>(&'p mut P);

impl<'de, P: Place<'de>> DeserializeSeed<'de> for To<'_, P> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.0.fill(deserializer)
    }
}

/// An object; `None` for any other value.
#[derive(Debug)]
pub(crate) struct Object<T>(pub(crate) Option<T>);

impl<T> Default for Object<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Object<T> {
    /// Reads the value of a key.
    pub(crate) fn read<'de, A: MapAccess<'de>>(&mut self, map: &mut A) -> Result<(), A::Error>
    where
        T: Fields<'de>,
    {
        map.next_value_seed(To(self))
    }
}

impl<'de, T: Fields<'de>> Place<'de> for Object<T> {
    fn fill<D: Deserializer<'de>>(&mut self, deserializer: D) -> Result<(), D::Error> {
        struct V<'p, T>(&'p mut Option<T>);
        impl<'de, T: Fields<'de>> Visitor<'de> for V<'_, T> {
            type Value = ();
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                anything(f)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
                read_map(self.0.insert(T::default()), map)
            }
            default_on!(bool number str null seq);
        }
        self.0 = None;
        deserializer.deserialize_any(V(&mut self.0))
    }
}

impl<'de, T: Fields<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut object = Self::default();
        object.fill(deserializer)?;
        Ok(object)
    }
}

/// Limit on the objects that are kept of a list. No provider sends as many in one payload (OpenAI allows 128 choices
/// and 128 tools). Without a limit, `[{},{},..` would take a hundred times its own size in memory.
pub(crate) const MAX_LIST: usize = 256;

/// A list of objects; other values are skipped. One object needs no allocation.
#[derive(Debug)]
pub(crate) struct List<T> {
    first: Object<T>,
    rest: Vec<T>,
}

impl<T> List<T> {
    pub(crate) fn is_empty(&self) -> bool {
        self.first.0.is_none()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.first.0.iter_mut().chain(&mut self.rest)
    }
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self {
            first: Object(None),
            rest: Vec::new(),
        }
    }
}

impl<T> IntoIterator for List<T> {
    type Item = T;
    type IntoIter = std::iter::Chain<std::option::IntoIter<T>, std::vec::IntoIter<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.first.0.into_iter().chain(self.rest)
    }
}

impl<T> List<T> {
    /// Reads the value of a key.
    pub(crate) fn read<'de, A: MapAccess<'de>>(&mut self, map: &mut A) -> Result<(), A::Error>
    where
        T: Fields<'de>,
    {
        map.next_value_seed(To(self))
    }
}

impl<'de, T: Fields<'de>> Place<'de> for List<T> {
    fn fill<D: Deserializer<'de>>(&mut self, deserializer: D) -> Result<(), D::Error> {
        struct V<'p, T>(&'p mut List<T>);
        impl<'de, T: Fields<'de>> Visitor<'de> for V<'_, T> {
            type Value = ();
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                anything(f)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
                let List { first, rest } = self.0;
                // The first object is read in place.
                while first.0.is_none() {
                    if seq.next_element_seed(To(first))?.is_none() {
                        return Ok(());
                    }
                }
                while rest.len() + 1 < MAX_LIST {
                    match seq.next_element()? {
                        Some(Object(Some(item))) => rest.push(item),
                        Some(Object(None)) => {}
                        None => return Ok(()),
                    }
                }
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(())
            }
            default_on!(bool number str null map);
        }
        *self = Self::default();
        deserializer.deserialize_any(V(self))
    }
}

impl<'de, T: Fields<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut list = Self::default();
        list.fill(deserializer)?;
        Ok(list)
    }
}
