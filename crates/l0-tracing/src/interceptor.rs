//! Interceptor: adds an observer to every run.

use std::sync::{Arc, OnceLock};

use l0_core::{Interceptor, KeyError, KeyList, KeyRules, Observers, RunInfo};
use tracing::Level;

use crate::live::LiveSpans;
use crate::names;
use crate::run::ObservedRun;
use crate::sites::{Settings, Sites};

/// Which keys of metadata may become fields.
const RULES: KeyRules = KeyRules::new(
    |key| (!key.is_empty()).then(|| key.to_owned()),
    "a name of at least one character",
)
.reserved(names::is_filled);

/// An [`Interceptor`] that makes a span of `tracing` of each run and of each of its attempts, and events of
/// what happens to it. Clones share everything.
///
/// Whatever subscriber is the default one where a run starts gets all of the run, on whatever thread it is
/// polled and dropped.
///
/// Its settings are part of call sites, which `tracing` keeps until the program ends. Make one interceptor
/// for an application; several of the same settings share their call sites.
#[derive(Debug, Clone)]
#[must_use]
pub struct TracingInterceptor {
    settings: Settings,
    /// Made when the first run starts, when all is set.
    sites: Arc<OnceLock<&'static Sites>>,
    live: LiveSpans,
}

impl TracingInterceptor {
    /// The target of spans and events, unless [`target`](Self::target) sets another.
    pub const TARGET: &'static str = "l0";

    /// Creates an interceptor. Its spans are of the target `l0` and of level INFO.
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

    /// Sets the target of spans and events, by which filters choose. Default: `l0`.
    pub fn target(mut self, target: impl Into<String>) -> Self {
        self.settings.target = target.into();
        Self::of(self.settings)
    }

    /// Sets the level of the spans. Default: INFO. That of events is by what they tell.
    pub fn level(mut self, level: Level) -> Self {
        self.settings.level = level;
        Self::of(self.settings)
    }

    /// Adds keys of metadata. A run's values of these keys become fields, of the same names, of its spans;
    /// where a source has a value of its own, of those of its attempts. A value that is
    /// [set](l0_core::RunHandle::set_metadata) while the run is live is recorded on the run's span, at its
    /// end. Values are read by [`keys::text`](l0_core::keys::text) and cut to 256 bytes; empty values are
    /// left out. `model`, `provider`, `operation` and `conversation_id` need not be listed: they have names
    /// of their own.
    ///
    /// # Errors
    ///
    /// If a key is empty, or if this crate itself has a field of that name, such as `gen_ai.request.model`
    /// or `l0.outcome`.
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
