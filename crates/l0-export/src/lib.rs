//! l0-export
