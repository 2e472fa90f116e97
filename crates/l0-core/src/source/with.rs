//! Sources with metadata, or with their own way to read items.

use serde_json::Value;

use super::source::{Attempt, Description, Source};
use crate::failure::Failure;
use crate::metadata::Metadata;

/// A source with metadata. Created by [`Source::metadata`].
#[derive(Debug, Clone)]
pub struct WithMetadata<S> {
    pub(super) source: S,
    pub(super) metadata: Metadata,
}

impl<S: Source> Source for WithMetadata<S> {
    type Answer = S::Answer;
    type Error = S::Error;
    type Connecting = S::Connecting;
    type View = S::View;

    fn connect(&mut self, attempt: Attempt) -> S::Connecting {
        self.source.connect(attempt)
    }

    fn view(&self) -> S::View {
        self.source.view()
    }

    fn describe(&self) -> Description {
        let mut description = self.source.describe();
        description.metadata.overlay(self.metadata.clone());
        description
    }

    fn input(&self) -> Option<Value> {
        self.source.input()
    }

    fn classify(&self, error: &S::Error) -> Option<Failure> {
        self.source.classify(error)
    }
}

/// A source with its own function to read items. Created by [`Source::view_with`].
#[derive(Debug, Clone)]
pub struct WithView<S, V> {
    pub(crate) source: S,
    pub(crate) view: V,
}

impl<S: Source, V: Clone + Send> Source for WithView<S, V> {
    type Answer = S::Answer;
    type Error = S::Error;
    type Connecting = S::Connecting;
    type View = V;

    fn connect(&mut self, attempt: Attempt) -> S::Connecting {
        self.source.connect(attempt)
    }

    fn view(&self) -> V {
        self.view.clone()
    }

    fn describe(&self) -> Description {
        self.source.describe()
    }

    fn input(&self) -> Option<Value> {
        self.source.input()
    }

    fn classify(&self, error: &S::Error) -> Option<Failure> {
        self.source.classify(error)
    }
}
