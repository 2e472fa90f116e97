//! Errors of builders, labels and custom metrics.

/// An error from building a collector or a registry.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The prefix is not a valid start of a metric name.
    #[error("prefix: {0:?} is not of the form [a-zA-Z_:][a-zA-Z0-9_:]*")]
    Prefix(String),
    /// A default label is not valid.
    #[error("label: {0}")]
    Label(LabelError),
    /// The bounds of a histogram are not ascending, or are negative or not finite.
    #[error(
        "buckets: bound {bound} of `{histogram}` must be finite, not negative and greater than the bound before it"
    )]
    #[non_exhaustive]
    Buckets {
        /// The histogram: the name of its setter in [`Buckets`](crate::Buckets).
        histogram: &'static str,
        /// The first invalid bound.
        bound: f64,
    },
}

/// An invalid label name. Each variant holds the name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LabelError {
    /// The name does not have the form `[a-zA-Z_][a-zA-Z0-9_]*`.
    #[error(
        "label name {0:?} must have the form [a-zA-Z_][a-zA-Z0-9_]*: letters, digits and underscores"
    )]
    Invalid(String),
    /// Prometheus or the metrics of L0 already use the name.
    #[error("label name `{0}` is reserved: Prometheus or the metrics of L0 already use it")]
    Reserved(String),
    /// The name is used twice.
    #[error("label name `{0}` is used twice")]
    Repeated(String),
}

/// An error from using a custom metric. Names are without the prefix.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricError {
    /// With the prefix, the name is not a valid metric name.
    #[error("metric name {0:?} must have the form [a-zA-Z0-9_:]+")]
    Name(String),
    /// Another metric writes lines with that name.
    #[error("metric name `{name}` is taken by `{by}`")]
    #[non_exhaustive]
    Taken {
        /// The name.
        name: String,
        /// The other metric.
        by: String,
    },
    /// The metric has another type.
    #[error("`{name}` is a {is} and cannot be used as a {used_as}")]
    #[non_exhaustive]
    Kind {
        /// The name.
        name: String,
        /// Its type.
        is: &'static str,
        /// The type that was requested.
        used_as: &'static str,
    },
    /// The metric has another help text.
    #[error("help text of `{name}` is {is:?}, not {used_as:?}")]
    #[non_exhaustive]
    Help {
        /// The name.
        name: String,
        /// Its help text.
        is: String,
        /// The help text that was passed.
        used_as: String,
    },
    /// The histogram has other buckets.
    #[error("histogram `{name}` already has other buckets")]
    #[non_exhaustive]
    BucketsDiffer {
        /// The name.
        name: String,
    },
    /// The buckets of a histogram are not ascending, or are not finite.
    #[error("bound {bound} of `{name}` must be finite and greater than the bound before it")]
    #[non_exhaustive]
    Buckets {
        /// The name.
        name: String,
        /// The first invalid bound.
        bound: f64,
    },
    /// The value is not finite, or is negative for a counter.
    #[error("`{name}` does not accept the value {value}")]
    #[non_exhaustive]
    Value {
        /// The name.
        name: String,
        /// The value that was passed.
        value: f64,
    },
}

impl MetricError {
    pub(crate) fn value(name: &str, value: f64) -> Self {
        Self::Value {
            name: name.to_owned(),
            value,
        }
    }
}
