// Each page is a module without items, which only rustdoc sees.
#![doc = include_str!("../guide/README.md")]

#[doc = include_str!("../guide/quick-start.md")]
pub mod quick_start {}

#[doc = include_str!("../guide/with-what-you-have.md")]
pub mod with_what_you_have {}

#[doc = include_str!("../guide/configuration.md")]
pub mod configuration {}

#[doc = include_str!("../guide/troubleshooting.md")]
pub mod troubleshooting {}

#[doc = include_str!("../guide/telemetry.md")]
pub mod telemetry {}

#[doc = include_str!("../guide/exporters.md")]
pub mod exporters {}

#[doc = include_str!("../guide/report.md")]
pub mod report {}

#[doc = include_str!("../guide/prometheus.md")]
pub mod prometheus {}

#[doc = include_str!("../guide/sentry.md")]
pub mod sentry {}

#[doc = include_str!("../guide/otel.md")]
pub mod otel {}

#[doc = include_str!("../guide/cost.md")]
pub mod cost {}

#[doc = include_str!("../guide/tracing.md")]
pub mod tracing {}

#[doc = include_str!("../guide/live.md")]
pub mod live {}

#[doc = include_str!("../guide/observers.md")]
pub mod observers {}

#[doc = include_str!("../guide/reliability.md")]
pub mod reliability {}

#[doc = include_str!("../guide/errors.md")]
pub mod errors {}

#[doc = include_str!("../guide/quality.md")]
pub mod quality {}

#[doc = include_str!("../guide/sources.md")]
pub mod sources {}

#[doc = include_str!("../guide/tool-calls.md")]
pub mod tool_calls {}

#[doc = include_str!("../guide/web-service.md")]
pub mod web_service {}

#[doc = include_str!("../guide/testing.md")]
pub mod testing {}

#[doc = include_str!("../guide/patterns.md")]
pub mod patterns {}

#[doc = include_str!("../guide/shutdown.md")]
pub mod shutdown {}

#[doc = include_str!("../guide/privacy.md")]
pub mod privacy {}

#[doc = include_str!("../guide/scaling.md")]
pub mod scaling {}

#[doc = include_str!("../guide/performance.md")]
pub mod performance {}

#[doc = include_str!("../guide/from-typescript.md")]
pub mod from_typescript {}

#[doc = include_str!("../guide/guide.md")]
pub mod guide {}

#[doc = include_str!("../guide/architecture.md")]
pub mod architecture {}
