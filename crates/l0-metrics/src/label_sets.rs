//! Label sets: the handles of each, resolved once up to a limit, with shared handles beyond it.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use l0_core::{KeyList, Metadata, Stalls};
use metrics::{Counter, Recorder, with_recorder};

use crate::handles::{Names, RecorderId, Registrar};
use crate::labels;
use crate::layout::LAYOUT;
use crate::series::{Series, series};

/// The label sets of one recorder. With another recorder, they are registered again.
#[derive(Debug, Default)]
pub(crate) struct LabelSets(RwLock<Option<OfRecorder>>);

#[derive(Debug)]
struct OfRecorder {
    recorder: RecorderId,
    /// Series by the text of their labels.
    all: HashMap<String, Arc<Series>>,
    /// The key of the shared series beyond the limit.
    other: Option<String>,
    health: Arc<Health>,
}

/// The interceptor's own counters. They have no labels.
#[derive(Debug)]
pub(crate) struct Health {
    overflow: Counter,
    pub(crate) observer_panics: Counter,
}

/// The result of a look-up.
pub(crate) struct Found {
    pub(crate) series: Arc<Series>,
    pub(crate) health: Arc<Health>,
}

/// The settings of an interceptor.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) names: Arc<Names>,
    pub(crate) keys: KeyList,
    pub(crate) max_series: usize,
    pub(crate) stalls: Option<Stalls>,
}

thread_local! {
    /// A buffer for keys. Most keys are known, and then nothing is allocated.
    static KEY: Cell<String> = const { Cell::new(String::new()) };
}

impl LabelSets {
    /// Returns the handles for this metadata with the current recorder.
    pub(crate) fn get(&self, settings: &Settings, metadata: &Metadata) -> Found {
        let mut key = KEY.try_with(Cell::take).unwrap_or_default();
        labels::put_key(&mut key, &settings.keys, metadata);
        let found = with_recorder(|recorder| {
            let found = self.find(RecorderId::of(recorder), &key, settings.max_series);
            found.unwrap_or_else(|| self.add(settings, metadata, key.clone(), recorder))
        });
        let _ = KEY.try_with(|buffer| buffer.set(key));
        found
    }

    fn find(&self, recorder: RecorderId, key: &str, max: usize) -> Option<Found> {
        let sets = self.read();
        let sets = sets.as_ref().filter(|sets| sets.recorder == recorder)?;
        sets.find(key, max)
    }

    fn add(
        &self,
        settings: &Settings,
        metadata: &Metadata,
        key: String,
        recorder: &dyn Recorder,
    ) -> Found {
        let id = RecorderId::of(recorder);
        let mut sets = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let sets = match &mut *sets {
            Some(sets) if sets.recorder == id => sets,
            sets => sets.insert(OfRecorder::new(id, recorder, &settings.names)),
        };
        if let Some(found) = sets.find(&key, settings.max_series) {
            return found;
        }
        let folds = sets.is_full(settings.max_series);
        let (key, labels) = if folds {
            labels::other(&settings.keys, metadata)
        } else {
            (key, labels::labels(&settings.keys, metadata))
        };
        if folds {
            sets.other = Some(key.clone());
            sets.health.overflow.increment(1);
        }
        let make = || series(recorder, &settings.names, &labels);
        let series = sets.all.entry(key).or_insert_with(make);
        Found {
            series: Arc::clone(series),
            health: Arc::clone(&sets.health),
        }
    }

    /// Returns all series.
    pub(crate) fn all(&self) -> Vec<Arc<Series>> {
        let sets = self.read();
        let all = sets.iter().flat_map(|sets| sets.all.values());
        all.map(Arc::clone).collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, Option<OfRecorder>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OfRecorder {
    fn new(id: RecorderId, recorder: &dyn Recorder, names: &Names) -> Self {
        names.describe(recorder);
        let registrar = Registrar {
            recorder,
            names,
            labels: &[],
        };
        Self {
            recorder: id,
            all: HashMap::new(),
            other: None,
            health: Arc::new(Health {
                overflow: registrar.counter(LAYOUT.own.overflow),
                observer_panics: registrar.counter(LAYOUT.own.observer_panics),
            }),
        }
    }

    /// Returns the handles of these labels, or the shared ones if the limit is reached.
    fn find(&self, key: &str, max: usize) -> Option<Found> {
        let series = self.all.get(key).or_else(|| {
            let other = self.other.as_ref().filter(|_| self.is_full(max))?;
            self.health.overflow.increment(1);
            self.all.get(other)
        })?;
        Some(Found {
            series: Arc::clone(series),
            health: Arc::clone(&self.health),
        })
    }

    /// Returns `true` if the limit is reached. The shared series does not count.
    fn is_full(&self, max: usize) -> bool {
        self.all.len() >= max.saturating_add(usize::from(self.other.is_some()))
    }
}
