//! A buffer for the gaps between tokens. A histogram takes one value per call, and each call takes locks.
//! Recording in batches keeps these calls out of most polls, and keeps the work of the last poll small.

use std::time::Duration;

use l0_core::KeyList;
use l0_core::keys::cut;
use opentelemetry::{KeyValue, StringValue};

use crate::attributes::text;

/// The maximum number of gaps recorded at once.
pub(crate) const BATCH: usize = 64;

/// The gaps that are not recorded yet.
pub(crate) struct Gaps {
    /// The gaps, in seconds.
    pub(crate) all: Vec<f64>,
    /// The attributes of their points, built once per attempt. Empty before that.
    pub(crate) attributes: Vec<KeyValue>,
    /// The model that answered, if known: the last of the attributes.
    model: Option<StringValue>,
}

impl Gaps {
    pub(crate) fn new() -> Self {
        Self {
            all: Vec::with_capacity(BATCH),
            attributes: Vec::new(),
            model: None,
        }
    }

    /// Adds a gap. Returns `true` if the buffer is full and must be recorded now.
    pub(crate) fn push(&mut self, gap: Duration) -> bool {
        self.all.push(gap.as_secs_f64());
        self.all.len() >= BATCH
    }

    /// Builds the attributes of the points: those of all points of the source, and the model that answers.
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

    /// Clears the gaps and the attributes, for the next attempt.
    pub(crate) fn reset(&mut self) {
        self.all.clear();
        self.attributes.clear();
    }
}
