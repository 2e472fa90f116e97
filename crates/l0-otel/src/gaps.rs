//! Gaps: those between tokens, until they are recorded. A histogram takes one value at a time, and each
//! call takes locks: so they are recorded some at a time, not one between each two tokens, and never
//! all of a long answer at once.

use std::time::Duration;

use l0_core::KeyList;
use l0_core::keys::cut;
use opentelemetry::{KeyValue, StringValue};

use crate::attributes::text;

/// How many are recorded at once, at most.
pub(crate) const AT_ONCE: usize = 64;

/// The gaps that are not recorded yet.
pub(crate) struct Gaps {
    /// In seconds.
    pub(crate) all: Vec<f64>,
    /// What points of them have, made once for an attempt; empty before.
    pub(crate) attributes: Vec<KeyValue>,
    /// The last of the attributes, if it was known.
    model: Option<StringValue>,
}

impl Gaps {
    pub(crate) fn new() -> Self {
        Self {
            all: Vec::with_capacity(AT_ONCE),
            attributes: Vec::new(),
            model: None,
        }
    }

    /// Adds one. Returns whether they are to be recorded now.
    pub(crate) fn push(&mut self, gap: Duration) -> bool {
        self.all.push(gap.as_secs_f64());
        self.all.len() >= AT_ONCE
    }

    /// Makes what their points have: what all points of the source have, and the model that answers.
    pub(crate) fn prepare(
        &mut self,
        of_points: &[KeyValue],
        key: &'static str,
        model: Option<&str>,
    ) {
        let model = model.filter(|model| !model.is_empty());
        let model = model.map(|model| cut(model, KeyList::MAX_VALUE));
        if self.attributes.is_empty() || self.model.as_ref().map(StringValue::as_str) != model {
            self.model = model.map(text);
            self.attributes = of_points.to_vec();
            let model = self.model.clone();
            self.attributes
                .extend(model.map(|model| KeyValue::new(key, model)));
        }
    }

    /// Forgets them, and what their points have: another attempt comes.
    pub(crate) fn reset(&mut self) {
        self.all.clear();
        self.attributes.clear();
    }
}
