//! The configuration, shared by the interceptor, the wrapper and the manual integration.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use l0_core::{Content, KeyError, KeyList, Severity};
use sentry_core::Hub;

use crate::tags;

/// The configuration of what is sent to Sentry. Cheap to clone.
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
    /// Sanitized tags.
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) tag_keys: KeyList,
}

/// The place of an execution's span in a trace.
///
/// For a run with a live [parent run](l0_core::RunBuilder::parent), the span of the parent run counts as the
/// span in scope.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Parent {
    /// A separate transaction in the trace of the span in scope. Nothing is lost if that span ends first, as the
    /// span of a request does when its body is streamed.
    #[default]
    Trace,
    /// A child of the span in scope. Use this for runs that end before that span does, such as the steps of an
    /// agent. If the transaction of that span ends first, the run's spans are lost. Without a span in scope, this
    /// is the same as [`Trace`](Self::Trace).
    Child,
}

impl SentryConfig {
    /// Creates the default configuration: everything except tokens and content is sent.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the hub whose client and scope executions use. They are read when an execution starts. Default: the
    /// hub that is current at that time.
    ///
    /// Every execution has its own hub, created from this one. This hub is not changed.
    pub fn hub(self, hub: impl Into<Arc<Hub>>) -> Self {
        self.with(|settings| settings.hub = Some(hub.into()))
    }

    /// Enables or disables capturing of the network error that ended an execution. Default: enabled. If
    /// disabled, nothing else is captured in its place. Breadcrumbs and spans still show the error.
    pub fn capture_network_errors(self, capture: bool) -> Self {
        self.with(|settings| settings.capture_network_errors = capture)
    }

    /// Enables or disables capturing of guardrail violations: once for each rule and message, and up to 32 per
    /// execution. Default: enabled. If disabled, and a violation ends an execution, nothing else is captured in
    /// its place. Breadcrumbs and spans still show the violation.
    pub fn capture_guardrail_violations(self, capture: bool) -> Self {
        self.with(|settings| settings.capture_guardrail_violations = capture)
    }

    /// Sets the minimum severity of captured violations. Default: [`Severity::Error`]. If a less severe violation
    /// ends an execution, it is captured like any other failure.
    pub fn min_guardrail_severity(self, severity: Severity) -> Self {
        self.with(|settings| settings.min_guardrail_severity = severity)
    }

    /// Enables or disables a breadcrumb for each token. They displace older breadcrumbs. Default: disabled, so a
    /// token costs nothing.
    pub fn breadcrumbs_for_tokens(self, breadcrumbs: bool) -> Self {
        self.with(|settings| settings.breadcrumbs_for_tokens = breadcrumbs)
    }

    /// Enables or disables the text in breadcrumbs of tokens: the first 50 characters of the token, which are the
    /// model's output. Default: disabled.
    pub fn include_token_text(self, include: bool) -> Self {
        self.with(|settings| settings.include_token_text = include)
    }

    /// Enables or disables the redacted texts of errors in messages, for manual reports and
    /// [`with_sentry`](crate::with_sentry). Default: disabled.
    ///
    /// By default a message consists of L0's own words: see [`redact::message`](l0_core::redact::message). Any
    /// other text of an error can quote a prompt or an answer. For runs that an interceptor reports, use
    /// [`Monitoring::error_text`](l0_core::Monitoring::error_text) instead.
    pub fn error_text(self, include: bool) -> Self {
        self.with(|settings| settings.error_text = include)
    }

    /// Sends prompts and answers, on the spans of attempts. Default: not sent.
    ///
    /// They are set when an attempt ends, after all numbers. Sentry rejects transactions larger than 1 MiB, so at
    /// most 256 KiB of content are sent per run. Content beyond this limit is left out. Numbers are always sent.
    /// With [`Parent::Child`], all runs of the application's transaction share the limit of the transaction. If a
    /// trace is not sampled, no content is kept, redacted or masked.
    ///
    /// In manual reports, the input comes from [`record_input`](crate::SentryExecution::record_input) and the
    /// answer from the recorded tokens. [`with_sentry`](crate::with_sentry) has no access to either.
    ///
    /// ```
    /// use l0_core::Content;
    /// use l0_sentry::SentryConfig;
    ///
    /// let content = Content::new().mask(|text| text.replace("ACME", "[customer]"));
    /// let config = SentryConfig::new().content(content);
    /// # drop(config);
    /// ```
    pub fn content(self, content: Content) -> Self {
        self.with(|settings| settings.content = Some(content))
    }

    /// Enables or disables spans, if tracing is enabled in the client. Default: enabled.
    pub fn enable_tracing(self, enable: bool) -> Self {
        self.with(|settings| settings.enable_tracing = enable)
    }

    /// Sets the place of an execution's span in a trace. Default: [`Parent::Trace`].
    pub fn parent(self, parent: Parent) -> Self {
        self.with(|settings| settings.parent = parent)
    }

    /// Adds a tag to everything that executions send. A later tag with the same key replaces an earlier one.
    /// Metadata listed with [`tag_keys`](Self::tag_keys) replaces both.
    ///
    /// Sentry accepts keys of up to 200 ASCII letters, digits, `_`, `.`, `:` and `-`, and values of up to 200
    /// characters on one line. Other characters in a key are replaced with `_`, and line breaks in a value with
    /// spaces. Longer keys and values are cut. A tag with an empty key or value is left out.
    pub fn tag(self, key: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.with(|settings| {
            let tag = tags::key(key.as_ref()).zip(tags::value(value.as_ref()));
            settings.tags.extend(tag);
        })
    }

    /// Adds keys of metadata. A run's entries with these keys become tags of everything that the run sends. You
    /// can call this method more than once. A run without the entry does not have the tag. See
    /// [`keys::text`](l0_core::keys::text) and [`tag`](Self::tag) for the format of keys and values.
    ///
    /// # Errors
    ///
    /// Returns an error if a key is empty, or if two keys would be sent as the same tag. Keys that would be sent as
    /// `component`, `error_type` or `rule` are errors too, because errors have these tags.
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

/// Omits the hub.
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
