//! The errors of the builder.

use std::io;

use l0_core::KeyError;

/// The maximum length of the prefix, in bytes.
pub(crate) const MAX_PREFIX: usize = 100;

/// The maximum length of a tag key, in bytes: half of a tag, to leave space for its value.
pub(crate) const MAX_KEY: usize = 100;

/// An error from building a [`StatsdInterceptor`](crate::StatsdInterceptor).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The address is of an unknown kind, or of a kind that this platform does not support.
    #[error("address: {0:?} must be `host:port` or, on Unix, `unix:///path`")]
    UnsupportedAddress(String),
    /// The address has no port, its host name cannot be resolved, or its path is too long.
    #[error("address: {address:?} cannot be resolved")]
    #[non_exhaustive]
    Resolve {
        /// The address.
        address: String,
        /// The error of the system.
        source: io::Error,
    },
    /// The system could not open a socket.
    #[error("socket: cannot be opened")]
    Socket(#[source] io::Error),
    /// The prefix is not a valid start of a name.
    #[error(
        "prefix: {0:?} must have the form `part.part`, of ASCII letters, digits, `_` and `-`, with \
         a letter first, in up to {MAX_PREFIX} bytes"
    )]
    Prefix(String),
    /// The key of a tag is empty or too long.
    #[error("tag: key {0:?} is empty or longer than {MAX_KEY} bytes")]
    TagKey(String),
    /// The key of a tag is the name of a tag that points already have.
    #[error("tag: key {0:?} is reserved: points already have this tag")]
    ReservedTagKey(String),
    /// A metadata key cannot be sent as a tag.
    #[error(transparent)]
    MetadataKey(#[from] KeyError),
    /// A tag was added, but tags are disabled by [`without_tags`](crate::StatsdBuilder::without_tags).
    #[error("tag: {0:?} cannot be sent because tags are disabled by `without_tags`")]
    WithoutTags(String),
}
