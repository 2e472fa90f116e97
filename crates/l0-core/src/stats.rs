//! Stats shared by a run and its attempts: why they did not complete, and the violations and drift in
//! their answers.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::end::End;
use crate::failure::NetworkErrorKind;
use crate::verdict::{DriftReport, Severity, Violation};

/// Why a run did not complete: the content of its [`End`], as plain data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct ErrorRecord {
    /// The class of the failure; see [`End::error_type`].
    #[serde(rename = "type")]
    pub error_type: Cow<'static, str>,
    /// The HTTP status, if a server responded with one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What happened, as one line for people; see [`End::message`].
    pub message: String,
}

impl ErrorRecord {
    /// Creates a record from an end. Returns `None` for a run that completed or was dropped.
    #[must_use]
    pub fn of(end: &End) -> Option<Self> {
        Some(Self {
            error_type: end.error_type()?,
            status: end.failure()?.status,
            message: end.message()?.to_owned(),
        })
    }
}

/// The guardrail violations of a run. Each distinct violation counts once per attempt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct GuardrailStats {
    /// The number of violations.
    pub violation_count: u64,
    /// The number of violations of each rule.
    pub violations_by_rule: BTreeMap<String, u64>,
    /// The number of violations of each severity.
    pub violations_by_severity: SeverityCounts,
    /// The number of violations of each rule and severity.
    pub violations_by_rule_and_severity: BTreeMap<String, SeverityCounts>,
}

impl GuardrailStats {
    /// The maximum number of distinct rule names. Violations of further rules count under `other`.
    pub const MAX_RULES: usize = 64;

    pub(crate) fn record(&mut self, violation: &Violation) {
        let mut counts = SeverityCounts::default();
        counts.record(violation.severity);
        self.violation_count += 1;
        self.violations_by_severity.merge(counts);
        self.add(&violation.rule, 1, counts);
    }

    /// Adds the violations of another attempt.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.violation_count = self.violation_count.saturating_add(other.violation_count);
        self.violations_by_severity
            .merge(other.violations_by_severity);
        for (rule, count) in &other.violations_by_rule {
            let counts = other.violations_by_rule_and_severity.get(rule);
            self.add(rule, *count, counts.copied().unwrap_or_default());
        }
    }

    fn add(&mut self, rule: &str, count: u64, by_severity: SeverityCounts) {
        const OTHER: &str = "other";
        let rules = &self.violations_by_rule;
        let distinct = rules.len() - usize::from(rules.contains_key(OTHER));
        let rule = if rules.contains_key(rule) || distinct < Self::MAX_RULES {
            rule
        } else {
            OTHER
        };
        let of_rule = self.violations_by_rule.entry(rule.to_owned()).or_default();
        *of_rule = of_rule.saturating_add(count);
        self.violations_by_rule_and_severity
            .entry(rule.to_owned())
            .or_default()
            .merge(by_severity);
    }
}

/// Counts by severity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct SeverityCounts {
    /// Warnings.
    pub warning: u64,
    /// Errors.
    pub error: u64,
    /// Fatal violations.
    pub fatal: u64,
}

impl SeverityCounts {
    /// Returns the count of one severity.
    #[must_use]
    pub const fn get(&self, severity: Severity) -> u64 {
        match severity {
            Severity::Warning => self.warning,
            Severity::Error => self.error,
            Severity::Fatal => self.fatal,
        }
    }

    fn merge(&mut self, other: Self) {
        self.warning = self.warning.saturating_add(other.warning);
        self.error = self.error.saturating_add(other.error);
        self.fatal = self.fatal.saturating_add(other.fatal);
    }

    fn record(&mut self, severity: Severity) {
        match severity {
            Severity::Warning => self.warning += 1,
            Severity::Error => self.error += 1,
            Severity::Fatal => self.fatal += 1,
        }
    }
}

/// The drift of a run.
///
/// In JSON, `detected` is `true` if there are any types.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct DriftStats {
    /// The kinds of drift found in any attempt, each listed once, in the order of their first
    /// detection.
    pub types: Vec<Cow<'static, str>>,
}

impl DriftStats {
    /// The maximum number of kinds of drift kept.
    pub const MAX_TYPES: usize = 64;

    /// Returns `true` if any attempt had drift.
    #[must_use]
    pub fn detected(&self) -> bool {
        !self.types.is_empty()
    }

    pub(crate) fn record(&mut self, report: &DriftReport) {
        self.add(&report.types);
    }

    /// Adds the drift of another attempt.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.add(&other.types);
    }

    fn add(&mut self, types: &[Cow<'static, str>]) {
        for kind in types {
            if self.types.len() < Self::MAX_TYPES && !self.types.contains(kind) {
                self.types.push(kind.clone());
            }
        }
    }
}

impl Serialize for DriftStats {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut stats = serializer.serialize_struct("DriftStats", 2)?;
        stats.serialize_field("detected", &self.detected())?;
        stats.serialize_field("types", &self.types)?;
        stats.end()
    }
}

/// Deserializes counts by label. Unknown labels read as the same value, and their counts add up.
pub(crate) fn add_up<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<NetworkErrorKind, u64>, D::Error> {
    let mut counts = BTreeMap::new();
    for (label, count) in BTreeMap::<String, u64>::deserialize(deserializer)? {
        let total = counts
            .entry(NetworkErrorKind::from_label(&label))
            .or_insert(0_u64);
        *total = total.saturating_add(count);
    }
    Ok(counts)
}
