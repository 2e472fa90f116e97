//! What the examples share: a server to talk to without a key.

pub mod server;

#[cfg(doctest)]
mod documents {
    //! The code blocks of the documents, compiled by the tests.

    #[doc = include_str!("../../README.md")]
    struct Readme;

    #[doc = include_str!("../../docs/architecture.md")]
    struct Architecture;
}
