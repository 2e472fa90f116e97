//! Monitoring: what is measured, of which runs, and what messages say.

use std::error::Error as StdError;

use serde_json::Value;

use crate::failure::Failure;
use crate::keep::Keep;
use crate::metadata::Metadata;
use crate::redact;

/// What is measured, of which runs.
///
/// [`Monitoring::new`] is on, for every run, with timings and network details.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[must_use]
pub struct Monitoring {
    enabled: bool,
    sample_rate: f64,
    pub(crate) include_network_details: bool,
    pub(crate) include_timings: bool,
    error_text: bool,
    pub(crate) keep: Keep,
    metadata: Metadata,
}

impl Monitoring {
    /// Creates the default: on.
    pub fn new() -> Self {
        Self {
            enabled: true,
            sample_rate: 1.0,
            include_network_details: true,
            include_timings: true,
            error_text: false,
            keep: Keep::all(),
            metadata: Metadata::new(),
        }
    }

    /// Creates a configuration that is off: no telemetry, no clock reads. Events and metadata are there
    /// all the same.
    pub fn off() -> Self {
        Self::new().enabled(false)
    }

    /// Switches on or off by a condition.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Sets which share of the runs is measured, drawn once per run, when it starts. It is clamped to
    /// 0..=1; NaN is 0. Default: 1.
    pub fn sample_rate(mut self, rate: f64) -> Self {
        self.sample_rate = if rate.is_nan() {
            0.0
        } else {
            rate.clamp(0.0, 1.0)
        };
        self
    }

    /// Sets whether telemetry lists each network error, with its message. The counts by type are there
    /// in any case. Default: true.
    pub fn include_network_details(mut self, include: bool) -> Self {
        self.include_network_details = include;
        self
    }

    /// Sets whether tokens are timed. If not, no clock is read per token: the time to the first token,
    /// gaps, rates and waits are absent; the duration is there. Default: true.
    pub fn include_timings(mut self, include: bool) -> Self {
        self.include_timings = include;
        self
    }

    /// Sets whether messages carry the redacted texts of errors, whatever they are. Default: false.
    ///
    /// By default a message is in L0's own words, made of kind, status and type, with the texts of
    /// [`io::Error`](std::io::Error)s and of transports: see [`redact::message`]. Any other text of an
    /// error may quote a prompt or an answer, and leaves only if this is on: in
    /// [`End::message`](crate::End::message), in the messages of network errors, and so through every exporter. It holds for
    /// runs that are not measured, too.
    pub fn error_text(mut self, include: bool) -> Self {
        self.error_text = include;
        self
    }

    /// Sets which runs are told one by one. Default: all.
    pub fn keep(mut self, keep: Keep) -> Self {
        self.keep = keep;
        self
    }

    /// Adds an entry to the metadata of every run, over an entry of the same key.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Returns the message of an error, from which `failure` was read.
    pub(crate) fn message(&self, error: &(dyn StdError + 'static), failure: &Failure) -> String {
        let text = self.error_text.then(|| redact::error_text(error));
        text.filter(|text| !text.is_empty())
            .unwrap_or_else(|| redact::message_of(error, failure))
    }

    /// Draws whether to measure the next run.
    pub(crate) fn draw(&self, rng: &mut fastrand::Rng) -> bool {
        self.enabled && rng.f64() < self.sample_rate
    }

    pub(crate) fn shared_metadata(&self) -> Metadata {
        self.metadata.clone()
    }
}

impl Default for Monitoring {
    fn default() -> Self {
        Self::new()
    }
}
