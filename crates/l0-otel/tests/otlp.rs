//! The spans of every way a run can end, as OTLP has them: encoded, decoded, and held against a file.
//!
//! `L0_WRITE=1` writes the file anew.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::fmt::Write as _;

use common::Sdk;
use l0_core::Monitoring;
use l0_core::testing::exits;
use l0_otel::{LANGFUSE, OPENINFERENCE, SIGNOZ};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use prost::Message;

const FILE: &str = "spans.txt";

fn text(value: &AnyValue) -> String {
    match value.value.as_ref().unwrap() {
        Value::StringValue(text) => text.clone(),
        Value::BoolValue(flag) => flag.to_string(),
        Value::IntValue(count) => count.to_string(),
        // Times differ where the clock could not be paused.
        Value::DoubleValue(_) => "(double)".to_owned(),
        Value::ArrayValue(list) => {
            let items = list.values.iter().map(text);
            format!("[{}]", Vec::from_iter(items).join(", "))
        }
        other => panic!("{other:?}"),
    }
}

fn attributes(all: &[KeyValue], indent: &str) -> String {
    let lines = all.iter().map(|one| {
        let value = match &*one.key {
            "l0.session_id" => "(id)".to_owned(),
            "langfuse.observation.completion_start_time" => "(time)".to_owned(),
            _ => text(one.value.as_ref().unwrap()),
        };
        format!("{indent}{} = {value}\n", one.key)
    });
    let mut lines = Vec::from_iter(lines);
    lines.sort();
    let before = lines.len();
    lines.dedup_by(|one, other| one.split(" =").next() == other.split(" =").next());
    assert_eq!(lines.len(), before, "one is there twice");
    lines.concat()
}

fn describe(span: &Span) -> String {
    let mut lines = format!("  {} ({})\n", span.name, span.kind().as_str_name());
    let status = span
        .status
        .as_ref()
        .map(|status| (status.code(), &status.message));
    if let Some((code, message)) = status {
        if !message.is_empty() {
            writeln!(lines, "    {}: {message}", code.as_str_name()).unwrap();
        }
    }
    lines += &attributes(&span.attributes, "    ");
    for event in &span.events {
        writeln!(lines, "    event {}", event.name).unwrap();
        lines += &attributes(&event.attributes, "      ");
    }
    lines
}

#[test]
fn the_spans_of_every_exit_are_those_of_the_file() {
    let mut lines = String::new();
    for exit in exits::all() {
        let sdk = Sdk::new();
        let otel = sdk.builder().dialect(&LANGFUSE).dialect(&OPENINFERENCE);
        let builder = l0_core::L0::builder()
            .monitoring(common::asked(Monitoring::new()))
            .interceptor(otel.dialect(&SIGNOZ).build());
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        let exited = exit.run(runtime, builder);
        assert_eq!(exited.info.observer_panics(), 0, "{exit}");

        let resource = ResourceAttributesWithSchema::default();
        let resource_spans = group_spans_by_resource_and_scope(sdk.spans(), &resource);
        let sent = ExportTraceServiceRequest { resource_spans };
        let decoded = ExportTraceServiceRequest::decode(&*sent.encode_to_vec()).unwrap();
        assert_eq!(decoded, sent, "{exit}");
        writeln!(lines, "{exit}").unwrap();
        let scopes = decoded
            .resource_spans
            .iter()
            .flat_map(|one| &one.scope_spans);
        let mut spans: Vec<_> = scopes
            .flat_map(|scope| &scope.spans)
            .map(describe)
            .collect();
        // The run's last in time, and first to read.
        spans.rotate_right(1);
        lines += &spans.concat();
        lines.push('\n');
    }
    let path = format!("{}/{FILE}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("L0_WRITE").is_some() {
        std::fs::write(&path, &lines).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    for (index, (line, expected)) in lines.lines().zip(expected.lines()).enumerate() {
        assert_eq!(line, expected, "line {} of {FILE}", index + 1);
    }
    assert_eq!(lines.len(), expected.len(), "{FILE}");
}
