//! l0-examples
