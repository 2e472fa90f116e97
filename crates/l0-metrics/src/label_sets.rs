//! Label sets: the handles of each, resolved once, up to a limit, beyond which they share those of one.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use l0_core::{KeyList, Metadata};
use metrics::{Counter, Recorder, with_recorder};

use crate::handles::{Names, RecorderId, Registrar};
use crate::labels;
use crate::layout::LAYOUT;
use crate::series::{Series, series};

/// The label sets of one recorder: of another one, they are looked up anew.
#[derive(Debug, Default)]
pub(crate) struct LabelSets(RwLock<Option<OfRecorder>>);

#[derive(Debug)]
struct OfRecorder {
    recorder: RecorderId,
    /// By the text of the labels.
    all: HashMap<String, Arc<Series>>,
    /// The key of those for what is too many.
    other: Option<String>,
    health: Arc<Health>,
}

/// What an interceptor counts about itself. It has no labels.
#[derive(Debug)]
pub(crate) struct Health {
    overflow: Counter,
    pub(crate) observer_panics: Counter,
}

/// What a look-up gives.
pub(crate) struct Found {
    pub(crate) series: Arc<Series>,
    pub(crate) health: Arc<Health>,
}

/// What a look-up needs to know.
pub(crate) struct Settings {
    pub(crate) names: Arc<Names>,
    pub(crate) keys: KeyList,
    pub(crate) max_series: usize,
}

impl LabelSets {
    /// The handles for what has this metadata, of the recorder that is current.
    pub(crate) fn get(&self, settings: &Settings, metadata: &Metadata) -> Found {
        let key = labels::key(&settings.keys, metadata);
        with_recorder(|recorder| {
            let found = self.find(RecorderId::of(recorder), &key, settings.max_series);
            found.unwrap_or_else(|| self.add(settings, metadata, key, recorder))
        })
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

    /// All that there are.
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

    /// The handles of these labels, or those for what is too many.
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

    /// Whether there is no room for one more; those for what is too many do not count.
    fn is_full(&self, max: usize) -> bool {
        self.all.len() >= max.saturating_add(usize::from(self.other.is_some()))
    }
}
