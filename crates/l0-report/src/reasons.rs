//! Reasons: why runs failed, with counts.

use std::collections::BTreeMap;

use l0_core::{ErrorRecord, keys};
use serde::Serialize;

/// A reason why runs failed, from the [`ErrorRecord`] of each run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Reason<'a> {
    /// The type of the error, such as `401` or `zero_output`.
    pub error_type: &'a str,
    /// The HTTP status, if a server sent one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// A description in one line.
    pub message: &'a str,
    /// The number of runs.
    pub runs: u64,
}

/// Counts of reasons.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reasons {
    /// Status and count, by type and message.
    kept: BTreeMap<(String, String), (Option<u16>, u64)>,
    /// The number of runs whose reason is not kept.
    others: u64,
}

impl Reasons {
    /// The maximum number of reasons.
    pub(crate) const MAX: usize = 32;
    /// The maximum length of a message, in bytes.
    const MAX_TEXT: usize = 200;

    pub(crate) fn add(&mut self, error: &ErrorRecord) {
        let [error_type, message] = [&*error.error_type, &error.message]
            .map(|text| keys::cut(text, Self::MAX_TEXT).to_owned());
        self.count((error_type, message), error.status, 1);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (key, (status, runs)) in &other.kept {
            self.count(key.clone(), *status, *runs);
        }
        self.others = self.others.saturating_add(other.others);
    }

    fn count(&mut self, key: (String, String), status: Option<u16>, runs: u64) {
        let total = if self.kept.len() < Self::MAX || self.kept.contains_key(&key) {
            &mut self.kept.entry(key).or_insert((status, 0)).1
        } else {
            &mut self.others
        };
        *total = total.saturating_add(runs);
    }

    /// Returns the reasons, the most frequent first. Reasons that are not kept have type and message `other`.
    pub(crate) fn in_order(&self) -> Vec<Reason<'_>> {
        let kept = self.kept.iter();
        let kept = kept.map(|((error_type, message), (status, runs))| Reason {
            error_type,
            status: *status,
            message,
            runs: *runs,
        });
        let others = (self.others > 0).then_some(Reason {
            error_type: "other",
            status: None,
            message: "other",
            runs: self.others,
        });
        let mut reasons: Vec<_> = kept.chain(others).collect();
        reasons.sort_by_key(|reason| std::cmp::Reverse(reason.runs));
        reasons
    }
}
