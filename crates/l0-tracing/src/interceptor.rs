//! The interceptor that adds an observer to every run.

use std::sync::{Arc, OnceLock};

use l0_core::{Interceptor, KeyError, KeyList, KeyRules, Observers, RunInfo};
use tracing::Level;

use crate::live::LiveSpans;
use crate::names;
use crate::run::ObservedRun;
use crate::sites::{Settings, Sites};

/// The rules for metadata keys that can become fields.
const RULES: KeyRules = KeyRules::new(
    |key| (!key.is_empty()).then(|| key.to_owned()),
    "a name of at least one character",
)
.reserved(names::is_filled);

/// An [`Interceptor`] that emits a `tracing` span for each run and each attempt, and events for what happens in a
/// run. Clones share everything.
///
/// The subscriber that is the default where a run starts receives the whole run, on every thread that polls or drops
/// it.
///
/// The settings are part of call sites, which `tracing` keeps until the program ends. Create one interceptor per
/// application. Interceptors with the same settings share their call sites.
#[derive(Debug, Clone)]
#[must_use]
pub struct TracingInterceptor {
    settings: Settings,
    /// Created when the first run starts, when the settings are final.
    sites: Arc<OnceLock<&'static Sites>>,
    live: LiveSpans,
}

impl TracingInterceptor {
    /// The default target of spans and events. [`target`](Self::target) sets another one.
    pub const TARGET: &'static str = "l0";

    /// Creates an interceptor whose spans have the target `l0` and the level INFO.
    pub fn new() -> Self {
        Self::of(Settings {
            target: Self::TARGET.to_owned(),
            level: Level::INFO,
            keys: KeyList::new(),
        })
    }

    fn of(settings: Settings) -> Self {
        Self {
            settings,
            sites: Arc::default(),
            live: LiveSpans::default(),
        }
    }

    /// Sets the target of spans and events, which filters match. Default: `l0`.
    pub fn target(mut self, target: impl Into<String>) -> Self {
        self.settings.target = target.into();
        Self::of(self.settings)
    }

    /// Sets the level of the spans. Default: INFO. The level of an event depends on the event.
    pub fn level(mut self, level: Level) -> Self {
        self.settings.level = level;
        Self::of(self.settings)
    }

    /// Adds keys of metadata. Each becomes a field of the same name on the run's spans. A value that a source sets
    /// replaces the run's value on the spans of that source's attempts. A value
    /// [set](l0_core::RunHandle::set_metadata) while the run is live is recorded on the run's span when the run ends.
    /// Values are read by [`keys::text`](l0_core::keys::text) and cut to 256 bytes. Empty values are left out. You do
    /// not need to list `model`, `provider`, `operation` and `conversation_id`: they have their own fields.
    ///
    /// # Errors
    ///
    /// Returns an error if a key is empty, or if this crate already has a field of that name, such as
    /// `gen_ai.request.model` or `l0.outcome`.
    pub fn field_keys<I>(mut self, keys: I) -> Result<Self, KeyError>
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.settings.keys.add(keys, &RULES)?;
        Ok(Self::of(self.settings))
    }
}

impl Default for TracingInterceptor {
    fn default() -> Self {
        Self::new()
    }
}

impl Interceptor for TracingInterceptor {
    fn observe(&self, run: &RunInfo, observers: &mut Observers) {
        let sites = self.sites.get_or_init(|| Sites::of(&self.settings));
        if sites.are_of_interest() {
            observers.push(ObservedRun::start(sites, &self.live, run));
        }
    }

    fn needs_telemetry(&self) -> bool {
        true
    }
}
