//! Captured: records every event of every run.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::attempt_stats::AttemptStats;
use crate::end::End;
use crate::event::{Event, RetryKind, RetryReason};
use crate::failure::NetworkErrorKind;
use crate::keep::KeepReason;
use crate::metadata::Metadata;
use crate::observe::{Interceptor, Interest, Observer, Observers, RunInfo};
use crate::telemetry::{Telemetry, Timestamp};
use crate::token::{TokenKind, TokenView};
use crate::verdict::{DriftReport, Violation};

/// An interceptor that records every event of every run. Clones share the recording.
#[derive(Debug, Clone, Default)]
pub struct Captured {
    events: Arc<Mutex<Vec<(String, OwnedEvent)>>>,
}

impl Captured {
    /// Creates an interceptor without any events.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns all events so far, of all runs, in the order of their delivery.
    #[must_use]
    pub fn events(&self) -> Vec<OwnedEvent> {
        self.lock().iter().map(|(_, event)| event.clone()).collect()
    }

    /// Returns the events of the run with this id.
    #[must_use]
    pub fn events_of(&self, id: &str) -> Vec<OwnedEvent> {
        let events = self.lock();
        let of_run = events.iter().filter(|(run, _)| run == id);
        of_run.map(|(_, event)| event.clone()).collect()
    }

    /// Returns the [names](Event::name) of all events so far, in the same order.
    #[must_use]
    pub fn kinds(&self) -> Vec<&'static str> {
        self.lock().iter().map(|(_, event)| event.name()).collect()
    }

    /// Returns the final telemetry of the run that finished last, or `None` if it was not measured.
    #[must_use]
    pub fn telemetry(&self) -> Option<Telemetry> {
        let events = self.lock();
        events.iter().rev().find_map(|(_, event)| match event {
            OwnedEvent::Finished { telemetry, .. } => Some(telemetry.as_deref().cloned()),
            _ => None,
        })?
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(String, OwnedEvent)>> {
        // A push cannot be left incomplete.
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Interceptor for Captured {
    fn observe(&self, run: &RunInfo, observers: &mut Observers) {
        observers.push(Capture {
            run: run.id().to_owned(),
            captured: self.clone(),
        });
    }
}

struct Capture {
    run: String,
    captured: Captured,
}

impl Observer for Capture {
    fn interest(&self) -> Interest {
        Interest::TOKENS
    }

    fn on_event(&mut self, event: &Event<'_>) {
        self.captured
            .lock()
            .push((self.run.clone(), OwnedEvent::from(event)));
    }
}

/// An [`Event`] that owns its data, with the same variants and fields.
///
/// Convert an expected event to compare it with a captured one:
///
/// ```
/// use l0_core::Event;
/// use l0_core::testing::OwnedEvent;
///
/// let expected = OwnedEvent::from(&Event::attempt_started(2));
/// assert!(matches!(expected, OwnedEvent::AttemptStarted { number: 2, .. }));
/// ```
///
/// `Debug` has the same output as that of an event: only the length of a token's text, and nothing
/// of the source's own error.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the variants and fields are those of `Event`")]
pub enum OwnedEvent {
    #[non_exhaustive]
    Started { at: Option<Timestamp> },
    #[non_exhaustive]
    AttemptStarted { number: u32, source: u32 },
    #[non_exhaustive]
    AttemptFinished { attempt: Box<AttemptStats> },
    #[non_exhaustive]
    Fallback { from: u32, to: u32 },
    #[non_exhaustive]
    FirstToken { after: Option<Duration> },
    #[non_exhaustive]
    Token {
        index: u64,
        gap: Option<Duration>,
        kind: TokenKind,
        text: String,
    },
    #[non_exhaustive]
    Answer { kind: TokenKind, text: String },
    #[non_exhaustive]
    NetworkError {
        kind: NetworkErrorKind,
        message: String,
        delay: Option<Duration>,
        attempt: Option<u32>,
    },
    #[non_exhaustive]
    Retry {
        attempt: u32,
        reason: RetryReason,
        delay: Duration,
        kind: RetryKind,
    },
    #[non_exhaustive]
    Violation { violation: Violation },
    #[non_exhaustive]
    Drift { report: DriftReport },
    #[non_exhaustive]
    Finished {
        end: End,
        telemetry: Option<Box<Telemetry>>,
        /// The text of the source's own error.
        error: Option<String>,
        response_model: Option<String>,
        response_id: Option<String>,
        metadata: Metadata,
        kept: Option<KeepReason>,
    },
}

impl OwnedEvent {
    /// Returns the stable [name](Event::name) of the event's kind.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.borrowed().name()
    }

    /// Returns the event as an observer received it, except for the source's own error, of which
    /// only the text is kept.
    fn borrowed(&self) -> Event<'_> {
        match self {
            Self::Started { at } => Event::Started { at: *at },
            Self::AttemptStarted { number, source } => Event::AttemptStarted {
                number: *number,
                source: *source,
            },
            Self::AttemptFinished { attempt } => Event::AttemptFinished { attempt },
            Self::Fallback { from, to } => Event::Fallback {
                from: *from,
                to: *to,
            },
            Self::FirstToken { after } => Event::FirstToken { after: *after },
            Self::Token {
                index,
                gap,
                kind,
                text,
            } => Event::Token {
                index: *index,
                gap: *gap,
                view: TokenView::new(*kind, text),
            },
            Self::Answer { kind, text } => Event::Answer {
                view: TokenView::new(*kind, text),
            },
            Self::NetworkError {
                kind,
                message,
                delay,
                attempt,
            } => Event::NetworkError {
                kind: *kind,
                message,
                delay: *delay,
                attempt: *attempt,
            },
            Self::Retry {
                attempt,
                reason,
                delay,
                kind,
            } => Event::Retry {
                attempt: *attempt,
                reason: *reason,
                delay: *delay,
                kind: *kind,
            },
            Self::Violation { violation } => Event::Violation { violation },
            Self::Drift { report } => Event::Drift { report },
            Self::Finished {
                end,
                telemetry,
                response_model,
                response_id,
                metadata,
                kept,
                ..
            } => Event::Finished {
                end,
                telemetry: telemetry.as_deref(),
                error: None,
                response_model: response_model.as_deref(),
                response_id: response_id.as_deref(),
                metadata,
                kept: *kept,
            },
        }
    }
}

impl From<&Event<'_>> for OwnedEvent {
    fn from(event: &Event<'_>) -> Self {
        match *event {
            Event::Started { at } => Self::Started { at },
            Event::AttemptStarted { number, source } => Self::AttemptStarted { number, source },
            Event::AttemptFinished { attempt } => Self::AttemptFinished {
                attempt: Box::new(attempt.clone()),
            },
            Event::Fallback { from, to } => Self::Fallback { from, to },
            Event::FirstToken { after } => Self::FirstToken { after },
            Event::Token { index, gap, view } => Self::Token {
                index,
                gap,
                kind: view.kind,
                text: view.text.to_owned(),
            },
            Event::Answer { view } => Self::Answer {
                kind: view.kind,
                text: view.text.to_owned(),
            },
            Event::NetworkError {
                kind,
                message,
                delay,
                attempt,
            } => Self::NetworkError {
                kind,
                message: message.to_owned(),
                delay,
                attempt,
            },
            Event::Retry {
                attempt,
                reason,
                delay,
                kind,
            } => Self::Retry {
                attempt,
                reason,
                delay,
                kind,
            },
            Event::Violation { violation } => Self::Violation {
                violation: violation.clone(),
            },
            Event::Drift { report } => Self::Drift {
                report: report.clone(),
            },
            Event::Finished {
                end,
                telemetry,
                error,
                response_model,
                response_id,
                metadata,
                kept,
            } => Self::Finished {
                end: end.clone(),
                telemetry: telemetry.cloned().map(Box::new),
                error: error.map(ToString::to_string),
                response_model: response_model.map(str::to_owned),
                response_id: response_id.map(str::to_owned),
                metadata: metadata.clone(),
                kept,
            },
        }
    }
}

impl fmt::Debug for OwnedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.borrowed().fmt(f)
    }
}
