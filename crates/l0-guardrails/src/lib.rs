//! Checks of a model's answers while they stream: guardrail rules and drift detection.
//!
//! ```
//! use l0_core::{Chunk, L0, Monitoring, Token};
//! use l0_guardrails::{Drift, Guardrails};
//! # use futures_util::StreamExt;
//! # use l0_core::testing::Script;
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let client = Script::new()
//! #     .attempt(|a| a.tokens(["{\"answer\":", " 42"]))
//! #     .attempt(|a| a.tokens(["{\"answer\":", " 42}"]));
//!
//! let l0 = L0::builder()
//!     .monitoring(Monitoring::new())
//!     .guardrails(Guardrails::recommended())
//!     .drift(Drift::new())
//!     .build();
//!
//! // The first answer is cut off in the middle of the JSON, so L0 retries.
//! let mut run = l0.stream(|_attempt| client.connect()).start();
//! let mut text = String::new();
//! while let Some(chunk) = run.next().await {
//!     match chunk? {
//!         Chunk::Item(token) => text.push_str(token.view().answer()),
//!         Chunk::Restart { .. } => text.clear(),
//!     }
//! }
//! assert_eq!(text, "{\"answer\": 42}");
//!
//! let telemetry = run.telemetry().expect("monitoring is on");
//! assert_eq!(telemetry.metrics.model_retries, 1);
//! let violations = telemetry.guardrails.expect("rules were checked");
//! assert_eq!(violations.violations_by_rule["json-parseable"], 1);
//! # Ok(())
//! # }
//! ```
//!
//! # Rules
//!
//! [`Guardrails`] provides sets of rules. A set is a [`Checks`](l0_core::Checks). Add rules to it with
//! [`with`](l0_core::Checks::with): rules of this crate, or your own [`Check`](l0_core::Check).
//!
//! | rule | what it checks |
//! |---|---|
//! | [`Json`] | an answer that begins like JSON is a JSON document |
//! | [`StrictJson`] | the answer is a JSON object or array, and nothing else |
//! | [`Markdown`] | fences, tables and lists are well-formed, and the answer looks complete |
//! | [`Latex`] | environments, formulas and braces are balanced |
//! | [`Patterns`] | the model does not talk about itself, refuse, leak its instructions, leave placeholders or repeat itself |
//! | [`CustomPattern`] | none of your own phrases is in the answer |
//! | [`ZeroOutput`] | the answer is not empty |
//!
//! The severity of a violation determines what happens. A warning is only counted. A recoverable error
//! makes the attempt fail when it ends: L0 retries, and the run completes once retries are exhausted.
//! An error that is not recoverable, or a fatal violation, ends the run immediately. The violating item
//! is not yielded. Items yielded earlier stay with the consumer.
//!
//! # Drift
//!
//! [`Drift`] detects answers that change their tone or format, repeat themselves, or comment on
//! themselves. Findings are recorded. L0 retries only if you enable it with [`Drift::retry`].
//!
//! # Input
//!
//! Rules and drift detectors receive the text of the answer, delta by delta. They do not receive
//! reasoning or tool calls. Each takes time proportional to the text, and bounded memory. Messages
//! contain no text of the answer, unless your own rule puts it there. Findings do not depend on how the
//! stream is divided into deltas. `entropy_spike` is the exception, because it compares deltas.
//!
//! # Guide
//!
//! In the [guide](https://docs.rs/l0-core/latest/l0_core/guide/) of `l0-core`:
//!
//! - [Guardrails and drift](https://docs.rs/l0-core/latest/l0_core/guide/quality/)

mod custom;
mod drift;
mod fence;
mod guardrails;
mod hash;
mod json;
mod latex;
mod markdown;
mod patterns;
mod phrases;
mod sentence;
mod wording;
mod zero_output;

pub use custom::{CustomPattern, PatternError};
pub use drift::Drift;
pub use guardrails::Guardrails;
pub use json::{Json, StrictJson};
pub use latex::Latex;
pub use markdown::Markdown;
pub use patterns::Patterns;
pub use zero_output::ZeroOutput;
