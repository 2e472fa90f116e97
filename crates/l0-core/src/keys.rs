//! The metadata keys that adapters know.
//!
//! Metadata is free-form; these keys have a meaning to adapters, which map them to the names that
//! their systems use. All of it is part of JSON, CSV and logs. Through Prometheus, `StatsD`, Sentry
//! tags and OpenTelemetry no other key leaves unless the adapter is told to send it.

/// The model asked for, such as `gpt-4`.
pub const MODEL: &str = "model";
/// Who serves the model, such as `openai`.
pub const PROVIDER: &str = "provider";
/// What is done, such as `chat`.
pub const OPERATION: &str = "operation";
/// The application's own endpoint, such as `/chat`.
pub const ENDPOINT: &str = "endpoint";
/// The conversation that the run belongs to.
pub const CONVERSATION_ID: &str = "conversation_id";
