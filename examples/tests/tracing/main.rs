//! Runs through `tracing`: `tracing-opentelemetry` sends the same spans as `l0-otel`, and a service has one
//! trace, log lines that name the run, and metrics through the facade.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod beside_otel;
#[path = "../common/mod.rs"]
mod common;
mod service;
