//! Runs through `tracing`: what `tracing-opentelemetry` sends of them is what `l0-otel` sends, and a service
//! has one trace, with log lines that name the run.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod beside_otel;
mod service;
