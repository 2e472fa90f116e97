//! Judge the answers of a model while they stream: rules that an answer must keep, and detection of
//! drift.
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
//! // The first answer is cut off in the middle of the JSON, so L0 asks again.
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
//! [`Guardrails`] has sets of rules. A set is a [`Checks`](l0_core::Checks): it takes further rules
//! with [`with`](l0_core::Checks::with): one of this crate, or a [`Check`](l0_core::Check) of your own.
//!
//! | rule | what it judges |
//! |---|---|
//! | [`Json`], [`StrictJson`] | whether the answer is a JSON document |
//! | [`Markdown`] | fences, tables, lists, and whether the answer looks complete |
//! | [`Latex`] | environments, formulas, braces |
//! | [`Patterns`] | whether the model talks about itself, refuses, leaks its instructions, leaves placeholders, repeats itself |
//! | [`CustomPattern`] | whether one of your own phrases is in the answer |
//! | [`ZeroOutput`] | whether there is an answer at all |
//!
//! The severity of a violation decides what happens. A warning is counted. A recoverable error makes
//! the attempt a faulty one when it ends: L0 asks again, and the run completes once retries are
//! exhausted. An error that is not recoverable ends the run at once, and so does a fatal violation:
//! the item at fault is not handed out. What was handed out before stays with the consumer.
//!
//! # Drift
//!
//! [`Drift`] detects answers that change their tone or format, repeat themselves, or comment on
//! themselves. What it finds is recorded. L0 asks again only if you say so, with [`Drift::retry`].
//!
//! # What they see
//!
//! Rules and drift see the text of the answer, delta by delta, and neither reasoning nor tool calls.
//! Each of them takes time in proportion to the text, and bounded memory. No message holds any text
//! of the answer, unless you put it there with a rule of your own. What is found does not depend on
//! where the stream is cut into deltas, except for `entropy_spike`, which is about deltas.

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
