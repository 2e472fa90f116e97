//! Monitoring: what is measured, which runs are, and what messages contain.

use std::error::Error as StdError;

use serde_json::Value;

use crate::failure::Failure;
use crate::keep::Keep;
use crate::keys;
use crate::metadata::Metadata;
use crate::redact;

/// A configuration of what is measured.
///
/// [`Monitoring::new`] measures every run, with timings and network details.
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
    /// Creates the default configuration: on.
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

    /// Creates a configuration that is off: no telemetry, and no clock read per token. Events and
    /// metadata still exist.
    pub fn off() -> Self {
        Self::new().enabled(false)
    }

    /// Turns monitoring on or off.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Sets the share of runs that are measured, decided once per run when it starts. It is clamped
    /// to 0..=1; NaN is 0. Default: 1.
    pub fn sample_rate(mut self, rate: f64) -> Self {
        self.sample_rate = if rate.is_nan() {
            0.0
        } else {
            rate.clamp(0.0, 1.0)
        };
        self
    }

    /// Enables the list of network errors, with their messages, in telemetry. The counts by type
    /// are always present. Default: `true`.
    pub fn include_network_details(mut self, include: bool) -> Self {
        self.include_network_details = include;
        self
    }

    /// Enables the timing of tokens. Without it no clock is read per token: the duration is
    /// present, but the time to first token, gaps, rates and waits are absent. Default: `true`.
    pub fn include_timings(mut self, include: bool) -> Self {
        self.include_timings = include;
        self
    }

    /// Enables the redacted texts of all errors in messages. Default: `false`.
    ///
    /// By default a message consists of L0's own words, made of kind, status and type, and of the
    /// texts of [`io::Error`](std::io::Error)s and of transports: see [`redact::message`]. Any
    /// other text of an error can quote a prompt or an answer. With this setting on, it is sent as
    /// part of [`End::message`](crate::End::message) and of the messages of network errors, through
    /// every exporter. The setting also applies to runs that are not measured.
    pub fn error_text(mut self, include: bool) -> Self {
        self.error_text = include;
        self
    }

    /// Sets which runs are exported individually. Default: all.
    pub fn keep(mut self, keep: Keep) -> Self {
        self.keep = keep;
        self
    }

    /// Adds an entry to the metadata of every run. It replaces an entry with the same key.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.metadata.insert(key.into(), value.into());
        // The settings can be printed before any run.
        keys::redact_endpoint(&mut self.metadata);
        self
    }

    /// Returns the message of an error that was classified as `failure`.
    pub(crate) fn message(&self, error: &(dyn StdError + 'static), failure: &Failure) -> String {
        let text = self.error_text.then(|| redact::error_text(error));
        text.filter(|text| !text.is_empty())
            .unwrap_or_else(|| redact::message_of(error, failure))
    }

    /// Decides if the next run is measured.
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
