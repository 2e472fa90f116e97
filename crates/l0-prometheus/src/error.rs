//! Error: what cannot be built, or be used as a label or a metric.

/// Why a collector or a registry cannot be built.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The prefix is not what a metric name may begin with.
    #[error("prefix: {0:?} is not of the form [a-zA-Z_:][a-zA-Z0-9_:]*")]
    Prefix(String),
    /// A default label cannot be used.
    #[error("label: {0}")]
    Label(LabelError),
    /// The bounds of a histogram do not ascend, or are negative or not finite.
    #[error("buckets: the bound {bound} of `{histogram}` is not finite, negative or not ascending")]
    #[non_exhaustive]
    Buckets {
        /// Which one: the name of the setter in [`Buckets`](crate::Buckets).
        histogram: &'static str,
        /// The first bound that is wrong.
        bound: f64,
    },
}

/// A label name that cannot be used. Each variant holds the name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LabelError {
    /// It is not of the form `[a-zA-Z_][a-zA-Z0-9_]*`.
    #[error(
        "the label name {0:?} is not of the form [a-zA-Z_][a-zA-Z0-9_]*: letters, digits and underscores"
    )]
    Invalid(String),
    /// It means something to Prometheus or to the metrics of L0.
    #[error("the label name `{0}` is reserved: Prometheus or the metrics of L0 have it already")]
    Reserved(String),
    /// It is there twice.
    #[error("the label name `{0}` is there twice")]
    Repeated(String),
}

/// Why a custom metric cannot be used so. Names are without the prefix.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricError {
    /// With the prefix, it is no name of a metric.
    #[error("the metric name {0:?} is not of the form [a-zA-Z0-9_:]+")]
    Name(String),
    /// Another metric writes lines of that name.
    #[error("the metric name `{name}` is taken by `{by}`")]
    #[non_exhaustive]
    Taken {
        /// The name.
        name: String,
        /// The other metric.
        by: String,
    },
    /// The metric is of another type.
    #[error("`{name}` is a {is}, and cannot be used as a {used_as}")]
    #[non_exhaustive]
    Kind {
        /// The name.
        name: String,
        /// Its type.
        is: &'static str,
        /// The type that it was used as.
        used_as: &'static str,
    },
    /// The metric has another help text.
    #[error("the help text of `{name}` is {is:?}, not {used_as:?}")]
    #[non_exhaustive]
    Help {
        /// The name.
        name: String,
        /// Its help text.
        is: String,
        /// The other one.
        used_as: String,
    },
    /// The histogram has other buckets.
    #[error("the histogram `{name}` has other buckets")]
    #[non_exhaustive]
    BucketsDiffer {
        /// The name.
        name: String,
    },
    /// The buckets of a histogram do not ascend, or are not finite.
    #[error("the bound {bound} of `{name}` is not finite or not ascending")]
    #[non_exhaustive]
    Buckets {
        /// The name.
        name: String,
        /// The first bound that is wrong.
        bound: f64,
    },
    /// A counter can only grow, and a sum of what is not finite says nothing.
    #[error("`{name}` cannot take {value}")]
    #[non_exhaustive]
    Value {
        /// The name.
        name: String,
        /// What it was to take.
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
