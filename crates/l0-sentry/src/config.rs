//! Config: what is sent, the same for the interceptor, the wrapper and the manual integration.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use l0_core::{Content, KeyError, KeyList, Severity};
use sentry_core::Hub;

use crate::tags;

/// What is sent to Sentry. Cheap to clone.
///
/// ```
/// use l0_core::Severity;
/// use l0_sentry::{Parent, SentryConfig};
///
/// let config = SentryConfig::new()
///     .min_guardrail_severity(Severity::Fatal)
///     .tag("environment", "production")
///     .parent(Parent::Child)
///     .tag_keys(["model"])?;
/// # drop(config);
/// # Ok::<_, l0_core::KeyError>(())
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct SentryConfig(Arc<Settings>);

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) hub: Option<Arc<Hub>>,
    pub(crate) capture_network_errors: bool,
    pub(crate) capture_guardrail_violations: bool,
    pub(crate) min_guardrail_severity: Severity,
    pub(crate) breadcrumbs_for_tokens: bool,
    pub(crate) include_token_text: bool,
    pub(crate) error_text: bool,
    pub(crate) enable_tracing: bool,
    pub(crate) content: Option<Content>,
    pub(crate) parent: Parent,
    /// As they are sent.
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) tag_keys: KeyList,
}

/// Where an execution's span belongs. A run that serves another one takes the span of that one for the
/// span in scope, while that one is live.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Parent {
    /// A transaction of its own, in the trace of the span in scope. Nothing is lost if that span
    /// ends first, as that of a request does when its body is streamed.
    #[default]
    Trace,
    /// A child of the span in scope, for runs that end before it does, as those of an agent's loop.
    /// Lost without a trace if that span's transaction ends first. Without a span in scope, the same
    /// as [`Trace`](Self::Trace).
    Child,
}

impl SentryConfig {
    /// Creates the default: everything is sent, except tokens.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the hub whose client and scope executions take, as they are when an execution starts.
    /// Default: the hub that is current then.
    ///
    /// Every execution has a hub of its own, made from this one; this one is not changed.
    pub fn hub(self, hub: impl Into<Arc<Hub>>) -> Self {
        self.with(|settings| settings.hub = Some(hub.into()))
    }

    /// Sets whether a network error that an execution ends with is captured. Default: yes. If not,
    /// nothing else is captured in its place; the trail and the spans still show it.
    pub fn capture_network_errors(self, capture: bool) -> Self {
        self.with(|settings| settings.capture_network_errors = capture)
    }

    /// Sets whether guardrail violations are captured, each once for its rule and message, and up to
    /// 32 of an execution. Default: yes. If not, and one ends an execution, nothing else is captured
    /// in its place; the trail and the spans still show it.
    pub fn capture_guardrail_violations(self, capture: bool) -> Self {
        self.with(|settings| settings.capture_guardrail_violations = capture)
    }

    /// Sets the severity from which on violations are captured. Default: [`Severity::Error`]. If a
    /// less severe one ends an execution, that is captured like any other failure.
    pub fn min_guardrail_severity(self, severity: Severity) -> Self {
        self.with(|settings| settings.min_guardrail_severity = severity)
    }

    /// Sets whether each token leaves a breadcrumb, which pushes out older ones. Default: no, and
    /// then a token costs nothing.
    pub fn breadcrumbs_for_tokens(self, breadcrumbs: bool) -> Self {
        self.with(|settings| settings.breadcrumbs_for_tokens = breadcrumbs)
    }

    /// Sets whether the breadcrumbs of tokens show the beginning of their text, which is the model's
    /// output. Default: no.
    pub fn include_token_text(self, include: bool) -> Self {
        self.with(|settings| settings.include_token_text = include)
    }

    /// Sets whether messages carry the redacted texts of errors, whatever they are, in what is
    /// reported manually or by [`with_sentry`](crate::with_sentry). Default: no.
    ///
    /// By default a message is in L0's own words: see [`redact::message`](l0_core::redact::message).
    /// Any other text of an error may quote a prompt or an answer. For runs that an interceptor
    /// reports, [`Monitoring::error_text`](l0_core::Monitoring::error_text) decides instead.
    pub fn error_text(self, include: bool) -> Self {
        self.with(|settings| settings.error_text = include)
    }

    /// Sends prompts and answers, on the spans of attempts. Default: none leaves.
    ///
    /// They are set when an attempt ends, after all numbers. Sentry takes nothing of a transaction that is larger
    /// than 1 MiB, so at most 256 KiB of each run are sent: what does not fit into what is left of them is left
    /// out, the numbers never. With [`Parent::Child`] all runs of the application's transaction share its size. Of
    /// a trace that is not sampled nothing is kept, redacted or masked.
    ///
    /// What is reported manually has the input of [`record_input`](crate::SentryExecution::record_input) and the
    /// tokens that were recorded; [`with_sentry`](crate::with_sentry) sees neither.
    ///
    /// ```
    /// use l0_sentry::{Content, SentryConfig};
    ///
    /// let content = Content::new().mask(|text| text.replace("ACME", "[customer]"));
    /// let config = SentryConfig::new().content(content);
    /// # drop(config);
    /// ```
    pub fn content(self, content: Content) -> Self {
        self.with(|settings| settings.content = Some(content))
    }

    /// Sets whether there are spans, if the client traces. Default: yes.
    pub fn enable_tracing(self, enable: bool) -> Self {
        self.with(|settings| settings.enable_tracing = enable)
    }

    /// Sets where an execution's span belongs. Default: [`Parent::Trace`].
    pub fn parent(self, parent: Parent) -> Self {
        self.with(|settings| settings.parent = parent)
    }

    /// Adds a tag to everything that executions send. Of two with the same key the later wins, and
    /// over both the metadata, if the key is among the [`tag_keys`](Self::tag_keys).
    ///
    /// Sentry takes keys of up to 200 ASCII letters, digits, `_`, `.`, `:` and `-`, and values of up
    /// to 200 characters on one line: other characters in a key become `_`, line breaks in a value
    /// become spaces, and what is longer is cut. A tag with an empty key or value is left out.
    pub fn tag(self, key: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.with(|settings| {
            let tag = tags::key(key.as_ref()).zip(tags::value(value.as_ref()));
            settings.tags.extend(tag);
        })
    }

    /// Adds keys of metadata: a run's entries with these keys become tags of everything that the run
    /// sends. You may call it again. A run without the entry has no such tag. See
    /// [`keys::text`](l0_core::keys::text) and [`tag`](Self::tag) for how keys and values are
    /// written.
    ///
    /// # Errors
    ///
    /// If a key is empty, if it would be sent as `component`, `error_type` or `rule`, which are tags of
    /// errors, or if two keys would be sent as the same tag.
    pub fn tag_keys<I>(mut self, keys: I) -> Result<Self, KeyError>
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let settings = Arc::make_mut(&mut self.0);
        settings.tag_keys.add(keys, &tags::RULES)?;
        Ok(self)
    }

    fn with(mut self, set: impl FnOnce(&mut Settings)) -> Self {
        set(Arc::make_mut(&mut self.0));
        self
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.0
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hub: None,
            capture_network_errors: true,
            capture_guardrail_violations: true,
            min_guardrail_severity: Severity::Error,
            breadcrumbs_for_tokens: false,
            include_token_text: false,
            error_text: false,
            enable_tracing: true,
            content: None,
            parent: Parent::Trace,
            tags: BTreeMap::new(),
            tag_keys: KeyList::new(),
        }
    }
}

/// Without what is in the hub.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("capture_network_errors", &self.capture_network_errors)
            .field(
                "capture_guardrail_violations",
                &self.capture_guardrail_violations,
            )
            .field("min_guardrail_severity", &self.min_guardrail_severity)
            .field("breadcrumbs_for_tokens", &self.breadcrumbs_for_tokens)
            .field("include_token_text", &self.include_token_text)
            .field("error_text", &self.error_text)
            .field("enable_tracing", &self.enable_tracing)
            .field("content", &self.content)
            .field("parent", &self.parent)
            .field("tags", &self.tags)
            .field("tag_keys", &self.tag_keys)
            .finish_non_exhaustive()
    }
}
