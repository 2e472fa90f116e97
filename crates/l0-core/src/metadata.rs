//! Metadata: the application's description of a run, shared by all readers.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// The application's description of a run: a map from keys to JSON values. Dereferences to a
/// [`BTreeMap`] for reading and changing. Cheap to clone: clones share the map until one of them is
/// changed.
///
/// ```
/// use l0_core::Metadata;
///
/// let mut metadata = Metadata::from([("model", "gpt-4")]);
/// metadata.insert("turn".into(), 3.into());
/// assert_eq!(metadata["model"], "gpt-4");
/// ```
#[derive(Clone, Default)]
pub struct Metadata(Option<Arc<BTreeMap<String, Value>>>);

static NONE: BTreeMap<String, Value> = BTreeMap::new();

impl Metadata {
    /// Creates empty metadata. Does not allocate.
    #[must_use]
    pub const fn new() -> Self {
        Self(None)
    }

    /// Sets these entries, replacing those with the same keys.
    pub(crate) fn overlay(&mut self, entries: Self) {
        if self.is_empty() {
            *self = entries;
        } else if !entries.is_empty() {
            self.extend(
                entries
                    .iter()
                    .map(|(key, value)| (key.clone(), value.clone())),
            );
        }
    }
}

impl Deref for Metadata {
    type Target = BTreeMap<String, Value>;

    fn deref(&self) -> &Self::Target {
        self.0.as_deref().unwrap_or(&NONE)
    }
}

/// Copies the map first if it is shared.
impl DerefMut for Metadata {
    fn deref_mut(&mut self) -> &mut Self::Target {
        Arc::make_mut(self.0.get_or_insert_default())
    }
}

impl PartialEq for Metadata {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl From<BTreeMap<String, Value>> for Metadata {
    fn from(entries: BTreeMap<String, Value>) -> Self {
        Self(Some(Arc::new(entries)))
    }
}

impl<K: Into<String>, V: Into<Value>, const N: usize> From<[(K, V); N]> for Metadata {
    fn from(entries: [(K, V); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl<K: Into<String>, V: Into<Value>> FromIterator<(K, V)> for Metadata {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let entries = entries.into_iter();
        let entries = entries.map(|(key, value)| (key.into(), value.into()));
        entries.collect::<BTreeMap<_, _>>().into()
    }
}

impl<'a> IntoIterator for &'a Metadata {
    type Item = (&'a String, &'a Value);
    type IntoIter = std::collections::btree_map::Iter<'a, String, Value>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl Serialize for Metadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BTreeMap::deserialize(deserializer).map(Self::from)
    }
}
