//! l0-providers
