//! The call sites of spans and events. They are created at run time, because their target, their level and some of
//! their fields are settings. `tracing` keeps a call site until the program ends, so equal settings share theirs.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use l0_core::KeyList;
use tracing::level_filters::{LevelFilter, STATIC_MAX_LEVEL};
use tracing::{Dispatch, Level};
use tracing_core::callsite::{self, Callsite};
use tracing_core::field::FieldSet;
use tracing_core::{Field, Interest, Kind, Metadata};

use crate::names;

/// The settings that determine the call sites.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) target: String,
    /// The level of the spans.
    pub(crate) level: Level,
    /// The metadata keys that are fields of the spans.
    pub(crate) keys: KeyList,
}

/// All call sites for one value of the settings.
#[derive(Debug)]
pub(crate) struct Sites {
    pub(crate) settings: Settings,
    pub(crate) run: &'static Site,
    pub(crate) attempt: &'static Site,
    pub(crate) network_error: &'static Site,
    pub(crate) retry: &'static Site,
    pub(crate) fallback: &'static Site,
    pub(crate) violation: &'static Site,
    pub(crate) drift: &'static Site,
    /// The `exception` of an attempt. The run can continue after it.
    pub(crate) attempt_failed: &'static Site,
    pub(crate) run_failed: &'static Site,
}

impl Sites {
    /// Returns the call sites for these settings.
    pub(crate) fn of(settings: &Settings) -> &'static Self {
        static ALL: Mutex<Vec<&'static Sites>> = Mutex::new(Vec::new());

        // A panic cannot leave the list half changed.
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.iter().find(|sites| sites.settings == *settings);
        if let Some(sites) = known {
            return sites;
        }
        let sites = Box::leak(Box::new(Self::new(settings.clone())));
        all.push(sites);
        sites
    }

    fn new(settings: Settings) -> Self {
        let Settings {
            target,
            level,
            keys,
        } = &settings;
        let target: &'static str = target.clone().leak();
        let listed = |mut names: Vec<&'static str>| {
            for (_, name) in keys.iter() {
                if !names.contains(&name) {
                    names.push(name.to_owned().leak());
                }
            }
            names
        };
        let span = |name, fields| Site::new(Kind::SPAN, name, target, *level, listed(fields));
        let event = |name, level, fields: &[&'static str]| {
            let fields = [&[names::MESSAGE, names::SESSION_ID], fields].concat();
            Site::new(Kind::EVENT, name, target, level, fields)
        };
        Self {
            run: span(names::RUN, names::of_runs()),
            attempt: span(names::ATTEMPT_SPAN, names::of_attempts()),
            // DEBUG, because the failed attempt reports it too.
            network_error: event(
                names::NETWORK_ERROR,
                Level::DEBUG,
                &names::OF_NETWORK_ERRORS,
            ),
            retry: event(names::RETRY, Level::INFO, &names::OF_RETRIES),
            fallback: event(names::FALLBACK, Level::WARN, &names::OF_FALLBACKS),
            // Not ERROR, because `tracing-opentelemetry` would mark the span as failed.
            violation: event(names::VIOLATION, Level::WARN, &names::OF_VIOLATIONS),
            drift: event(names::DRIFT, Level::WARN, &names::OF_DRIFT),
            attempt_failed: event(names::EXCEPTION, Level::WARN, &names::OF_EXCEPTIONS),
            run_failed: event(names::EXCEPTION, Level::ERROR, &names::OF_EXCEPTIONS),
            settings,
        }
    }

    /// Returns `true` if any subscriber is interested in any span or event of a run.
    pub(crate) fn are_of_interest(&self) -> bool {
        [
            self.run,
            self.attempt,
            self.run_failed,
            self.attempt_failed,
            self.fallback,
            self.violation,
            self.drift,
            self.retry,
            self.network_error,
        ]
        .iter()
        .any(|site| site.is_of_interest())
    }
}

/// A call site.
#[derive(Default)]
pub(crate) struct Site {
    /// Set after the site is created, because the metadata refers to the site.
    known: OnceLock<Known>,
    interest: AtomicU8,
}

struct Known {
    metadata: Metadata<'static>,
    /// The fields of the metadata, in their order.
    fields: Vec<Field>,
}

/// The values of [`Site::interest`].
const NEVER: u8 = 0;
const SOMETIMES: u8 = 1;
const ALWAYS: u8 = 2;

impl Site {
    fn new(
        kind: Kind,
        name: &'static str,
        target: &'static str,
        level: Level,
        fields: Vec<&'static str>,
    ) -> &'static Self {
        let site: &'static Self = Box::leak(Box::default());
        let fields = FieldSet::new(fields.leak(), tracing_core::identify_callsite!(site));
        let metadata = Metadata::new(name, target, level, None, None, None, fields, kind);
        site.known.get_or_init(|| Known {
            fields: metadata.fields().iter().collect(),
            metadata,
        });
        callsite::register(site);
        site
    }

    fn known(&self) -> &Known {
        self.known.get().expect("set when the site was created")
    }

    pub(crate) fn metadata(&self) -> &Metadata<'static> {
        &self.known().metadata
    }

    /// Returns its fields, in the order in which they were declared.
    pub(crate) fn fields(&self) -> &[Field] {
        &self.known().fields
    }

    /// Returns `true` if any subscriber is interested.
    fn is_of_interest(&self) -> bool {
        let level = *self.metadata().level();
        level <= STATIC_MAX_LEVEL
            && level <= LevelFilter::current()
            && self.interest.load(Ordering::Relaxed) != NEVER
    }

    /// Returns `true` if this subscriber enables it now.
    pub(crate) fn is_enabled(&self, dispatch: &Dispatch) -> bool {
        self.is_of_interest()
            && (self.interest.load(Ordering::Relaxed) == ALWAYS
                || dispatch.enabled(self.metadata()))
    }
}

impl Callsite for Site {
    fn set_interest(&self, interest: Interest) {
        let interest = match interest {
            interest if interest.is_never() => NEVER,
            interest if interest.is_always() => ALWAYS,
            _ => SOMETIMES,
        };
        self.interest.store(interest, Ordering::Relaxed);
    }

    fn metadata(&self) -> &Metadata<'_> {
        &self.known().metadata
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let metadata = self.metadata();
        f.debug_struct("Site")
            .field("name", &metadata.name())
            .field("level", metadata.level())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn settings(target: &str) -> Settings {
        Settings {
            target: target.to_owned(),
            level: Level::INFO,
            keys: KeyList::new(),
        }
    }

    #[test]
    fn equal_settings_share_their_call_sites() {
        let one = Sites::of(&settings("one"));
        assert!(std::ptr::eq(one, Sites::of(&settings("one"))));
        assert!(!std::ptr::eq(one, Sites::of(&settings("other"))));
    }

    #[test]
    fn each_field_is_declared_once() {
        let sites = Sites::of(&settings("twice"));
        for site in [sites.run, sites.attempt, sites.retry, sites.network_error] {
            let names = site.fields().iter().map(Field::name);
            let distinct = BTreeSet::from_iter(names.clone());
            assert_eq!(distinct.len(), names.count(), "{site:?}");
        }
    }
}
