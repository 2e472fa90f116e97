//! Error: why an interceptor cannot be built.

use std::io;

use l0_core::KeyError;

/// The longest prefix, in bytes.
pub(crate) const MAX_PREFIX: usize = 100;

/// The longest tag key, in bytes: half of a tag, so that there is room for its value.
pub(crate) const MAX_KEY: usize = 100;

/// Why a [`StatsdInterceptor`](crate::StatsdInterceptor) cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The address is of a kind that is not known, or that this platform has not.
    #[error("address: {0:?} is neither `host:port` nor, on Unix, `unix:///path`")]
    UnsupportedAddress(String),
    /// The address has no port, its host name cannot be resolved, or its path is too long.
    #[error("address: {address:?} cannot be resolved: {source}")]
    #[non_exhaustive]
    Resolve {
        /// The address.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// The system gives no socket.
    #[error("socket: {0}")]
    Socket(#[source] io::Error),
    /// The prefix cannot begin a name.
    #[error(
        "prefix: {0:?} is not of the form `part.part`, of ASCII letters, digits, `_` and `-`, with \
         a letter first, in up to {MAX_PREFIX} bytes"
    )]
    Prefix(String),
    /// A key of a tag is empty or too long.
    #[error("tag: the key {0:?} is empty or longer than {MAX_KEY} bytes")]
    TagKey(String),
    /// A key of a tag is one of those that points have of themselves.
    #[error("tag: the key {0:?} is reserved: points have such a tag of their own")]
    ReservedTagKey(String),
    /// A metadata key cannot be sent as a tag.
    #[error(transparent)]
    MetadataKey(#[from] KeyError),
    /// There is a tag, and [`without_tags`](crate::StatsdBuilder::without_tags).
    #[error("tag: {0:?} cannot be sent without tags")]
    WithoutTags(String),
}
