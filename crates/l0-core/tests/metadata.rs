//! Metadata: which entries of a run and its sources win, before the run starts and while it is live.

use std::thread;
use std::time::Duration;

use futures_util::StreamExt;
use l0_core::source::ByToken;
use l0_core::testing::{Captured, OwnedEvent, Script, ScriptedError, ScriptedStream};
use l0_core::{
    Attempt, Chunk, Description, Failure, Interceptor, L0, Metadata, Monitoring, NewRun, Observers,
    Refusal, Retry, RunInfo, Source, source,
};
use serde_json::{Value, json};

const MS: Duration = Duration::from_millis(1);

/// A source with a description.
struct Described(Description);

type Connecting = std::future::Ready<Result<ScriptedStream, ScriptedError>>;

impl Source for Described {
    type Answer = ScriptedStream;
    type Error = ScriptedError;
    type Connecting = Connecting;
    type View = ByToken;

    fn connect(&mut self, _: Attempt) -> Connecting {
        std::future::ready(Err(Failure::status(401).into()))
    }

    fn view(&self) -> ByToken {
        ByToken
    }

    fn describe(&self) -> Description {
        self.0.clone()
    }
}

fn described(names: Option<&'static str>) -> Described {
    let mut description = Description::new();
    description.model = names.map(Into::into);
    description.provider = names.map(Into::into);
    description.operation = names.map(Into::into);
    Described(description)
}

/// Sets entries before the run.
struct Sets(Vec<(&'static str, &'static str)>);

impl Interceptor for Sets {
    fn before(&self, run: &mut NewRun) -> Result<(), Refusal> {
        for (key, value) in &self.0 {
            run.set_metadata(*key, *value);
        }
        Ok(())
    }
}

/// The places that can set an entry, from the weakest to the strongest.
const WHO: [&str; 5] = ["description", "monitoring", "run", "source", "before"];

/// Returns the entries of the run and its first attempt, set in these places.
async fn entries(
    key: &str,
    who: &[&'static str],
) -> (Option<Value>, Option<Value>, Option<String>) {
    let says = |name: &str| who.contains(&name);
    let mut monitoring = Monitoring::new();
    if says("monitoring") {
        monitoring = monitoring.metadata(key, "monitoring");
    }
    let mut builder = L0::builder().monitoring(monitoring).retry(Retry::none());
    if says("before") {
        let key: &'static str = key.to_owned().leak();
        builder = builder.interceptor(Sets(vec![(key, "before")]));
    }
    let l0 = builder.build();
    let first = described(says("description").then_some("description"));
    let start = |mut run: l0_core::Run<'static, _, ScriptedError>| async move {
        let _: Result<String, _> = run.text().await;
        let telemetry = run.telemetry().expect("measured");
        let of_source = run
            .info()
            .source(1)
            .expect("the first")
            .metadata
            .get(key)
            .cloned();
        assert_eq!(telemetry.metadata.get(key), run.info().metadata().get(key));
        (
            run.info().metadata().get(key).cloned(),
            of_source,
            telemetry.attempts[0].model.clone(),
        )
    };
    let with_run = |key: &str| says("run").then(|| key.to_owned());
    if says("source") {
        let mut builder = l0.stream_from(first.metadata(key, "source"));
        if let Some(key) = with_run(key) {
            builder = builder.metadata(key, "run");
        }
        start(builder.start()).await
    } else {
        let mut builder = l0.stream_from(first);
        if let Some(key) = with_run(key) {
            builder = builder.metadata(key, "run");
        }
        start(builder.start()).await
    }
}

#[tokio::test(start_paused = true)]
async fn the_most_specific_entry_wins() {
    for (weaker, stronger) in
        (0..WHO.len()).flat_map(|one| (one..WHO.len()).map(move |other| (one, other)))
    {
        let who = [WHO[weaker], WHO[stronger]];
        let expected = json!(WHO[stronger]);
        let model = WHO[stronger].to_owned();
        let entries = entries("model", &who).await;
        assert_eq!(
            entries,
            (Some(expected.clone()), Some(expected), Some(model)),
            "{who:?}"
        );
    }
    // With all of them, and with none.
    assert_eq!(entries("model", &WHO).await.2.as_deref(), Some("before"));
    assert_eq!(entries("model", &[]).await, (None, None, None));
    // An entry that descriptions cannot hold.
    for pair in WHO[1..].windows(2) {
        assert_eq!(
            entries("tenant", pair).await.0,
            Some(json!(pair[1])),
            "{pair:?}"
        );
    }
}

fn object(metadata: &Metadata) -> Value {
    json!(metadata)
}

#[tokio::test(start_paused = true)]
async fn a_fallback_inherits_entries_of_the_run_but_not_of_the_first_source() {
    let l0 = L0::builder()
        .monitoring(
            Monitoring::new()
                .metadata("environment", "test")
                .metadata("tier", "free"),
        )
        .retry(Retry::none())
        .interceptor(Sets(vec![("user", "u1"), ("region", "before")]))
        .build();
    let first = described(Some("first"))
        .metadata("key", "first's")
        .metadata("tier", "first's")
        .metadata("region", "first's");
    let mut run = l0
        .stream_from(first)
        .metadata("endpoint", "/chat")
        .metadata("operation", "chat")
        .fallback(described(Some("second")).metadata("tier", "second's"))
        .fallback(described(None).metadata("user", "third's"))
        .start();
    let _ = run.text().await;
    let sources: Vec<_> = run
        .info()
        .sources()
        .map(|source| object(&source.metadata))
        .collect();
    let shared =
        json!({ "environment": "test", "endpoint": "/chat", "user": "u1", "region": "before" });
    let with = |entries: Value| {
        let mut all = shared.clone();
        let (Some(all_entries), Value::Object(entries)) = (all.as_object_mut(), entries) else {
            panic!("objects")
        };
        all_entries.extend(entries);
        all
    };
    assert_eq!(
        sources,
        [
            with(
                json!({ "model": "first", "provider": "first", "operation": "chat", "key": "first's", "tier": "first's" })
            ),
            with(
                json!({ "model": "second", "provider": "second", "operation": "second", "tier": "second's" })
            ),
            with(json!({ "tier": "free", "user": "third's" })),
        ]
    );
    assert_eq!(
        object(run.info().metadata()),
        sources[0],
        "the run has the entries of its first source"
    );
    assert!(run.info().source(0).is_none() && run.info().source(4).is_none());
    let attempts = run.telemetry().expect("measured").attempts;
    let names: Vec<_> = attempts
        .iter()
        .map(|attempt| {
            [&attempt.model, &attempt.provider, &attempt.operation].map(Option::as_deref)
        })
        .collect();
    assert_eq!(
        names,
        [
            [Some("first"), Some("first"), Some("chat")],
            [Some("second"), Some("second"), Some("second")],
            [None, None, None],
        ]
    );
}

const WITH_A_KEY: &str = "https://me:secret@example.com/v1/chat?key=sk-secret";

#[tokio::test(start_paused = true)]
async fn an_endpoint_is_redacted_wherever_it_is_set() {
    type Case = (
        &'static str,
        fn(L0) -> l0_core::Run<'static, l0_core::testing::ScriptedToken, ScriptedError>,
    );
    let cases: [Case; 5] = [
        ("the run", |l0| {
            let builder = l0
                .stream_from(described(None))
                .metadata("endpoint", WITH_A_KEY);
            builder.fallback(described(None)).start()
        }),
        ("the first source", |l0| {
            let builder = l0.stream_from(described(None).metadata("endpoint", WITH_A_KEY));
            builder.fallback(described(None)).start()
        }),
        ("a fallback", |l0| {
            let builder = l0.stream_from(described(None));
            builder
                .fallback(described(None).metadata("endpoint", WITH_A_KEY))
                .start()
        }),
        ("the run, in place of the first source", |l0| {
            let builder = l0.stream_from(described(None).metadata("endpoint", "/chat"));
            builder
                .metadata("endpoint", WITH_A_KEY)
                .fallback(described(None))
                .start()
        }),
        ("a live run", |l0| {
            let run = l0
                .stream_from(described(None))
                .fallback(described(None))
                .start();
            run.set_metadata("endpoint", WITH_A_KEY);
            run
        }),
    ];
    for (who, start) in cases {
        let captured = Captured::new();
        let l0 = L0::builder()
            .monitoring(Monitoring::new())
            .retry(Retry::none())
            .interceptor(captured.clone())
            .build();
        let mut run = start(l0);
        let live = format!("{:?}", run.telemetry().map(|telemetry| telemetry.metadata));
        let _ = run.text().await;
        let sources: Vec<_> = run.info().sources().collect();
        let reported = format!(
            "{live} {:?} {sources:?} {:?} {:?}",
            captured.events(),
            run.telemetry(),
            run.info()
        );
        assert!(reported.contains("example.com"), "{who}: {reported}");
        assert!(!reported.contains("secret"), "{who}: {reported}");
    }
}

/// Endpoints with a secret, in every form that an application can write.
const ENDPOINTS: [(&str, &str); 22] = [
    (
        "https://me:secret@h.example/chat",
        "https://[redacted]@h.example/chat",
    ),
    ("HTTPS://secret@H/chat", "HTTPS://[redacted]@H/chat"),
    ("https://me:pa/secret@h/chat", "https://[redacted]@h/chat"),
    ("https://me:p@secret@h/chat", "https://[redacted]@h/chat"),
    ("//me:secret@h/chat", "//[redacted]@h/chat"),
    ("me:secret@h:80/chat", "[redacted]@h:80/chat"),
    ("me:secret@h", "[redacted]@h"),
    ("https://h/chat?key=secret", "https://h/chat?[redacted]"),
    ("https://h/chat?secret", "https://h/chat?[redacted]"),
    ("https://h/chat? key=secret", "https://h/chat?[redacted]"),
    ("https://h/chat?key=\"secret\"", "https://h/chat?[redacted]"),
    ("https://h/chat#secret", "https://h/chat#[redacted]"),
    ("/chat?key=secret", "/chat?[redacted]"),
    ("/chat?secret", "/chat?[redacted]"),
    ("/chat?a=1&secret", "/chat?[redacted]"),
    ("/chat?$filter=secret", "/chat?[redacted]"),
    ("/chat?=secret", "/chat?[redacted]"),
    ("/chat??secret", "/chat?[redacted]"),
    ("/chat#secret", "/chat#[redacted]"),
    ("POST /chat?secret HTTP/1.1", "POST /chat?[redacted]"),
    // Not a URL, and no secret.
    ("/users/@me/chat", "/users/@me/chat"),
    ("/chat", "/chat"),
];

#[test]
fn an_endpoint_is_redacted_in_every_form() {
    for (endpoint, expected) in ENDPOINTS {
        let monitoring = Monitoring::new().metadata("endpoint", endpoint);
        let l0 = L0::builder().monitoring(monitoring).build();
        let run = l0.stream_from(described(None)).start();
        assert_eq!(run.info().metadata()["endpoint"], expected, "{endpoint}");
    }
}

#[test]
fn of_an_address_only_the_host_is_used() {
    for (address, expected) in [
        ("api.example.com", Some("api.example.com")),
        ("::1", Some("::1")),
        ("https://api.example.com", Some("api.example.com")),
        (
            "https://me:secret@api.example.com/v1?key=secret",
            Some("api.example.com"),
        ),
        ("me:secret@api.example.com", Some("api.example.com")),
        ("api.example.com/secret", Some("api.example.com")),
        ("api.example.com?secret#secret", Some("api.example.com")),
        ("//api.example.com/secret", Some("api.example.com")),
        // The part before the slash can be a part of the password.
        ("https://me:sec/ret@api.example.com", None),
        ("/secret", None),
        ("", Some("")),
    ] {
        let mut description = Description::new();
        description.server_address = Some(address.into());
        let first = Described(description.clone());
        let l0 = L0::builder().monitoring(Monitoring::new()).build();
        let builder = l0.stream_from(first).fallback(Described(description));
        let run = builder.start();
        for source in run.info().sources() {
            let host = source.description.server_address.as_deref();
            assert_eq!(host, expected, "{address}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn metadata_set_on_a_live_run_reaches_only_its_telemetry_and_its_finished_event() {
    for measured in [true, false] {
        let captured = Captured::new();
        let finished = std::sync::Arc::new(std::sync::Mutex::new(None));
        let at_finish = std::sync::Arc::clone(&finished);
        let on_finish = l0_core::on_finish(move |finished| {
            *at_finish.lock().expect("no panic") = Some(object(finished.metadata));
        });
        let monitoring = if measured {
            Monitoring::new()
        } else {
            Monitoring::off()
        };
        let l0 = L0::builder()
            .monitoring(monitoring.metadata("environment", "test"))
            .interceptor(captured.clone())
            .interceptor(on_finish)
            .build();
        let script = Script::new().attempt(|a| a.token("Hello").wait(MS).token("!"));
        let mut run = l0
            .stream(script.source())
            .metadata("model", "gpt-4")
            .metadata("plan", "free")
            .start();
        run.set_metadata("before the first poll", true);
        assert!(matches!(run.next().await, Some(Ok(Chunk::Item(_)))));
        let handle = run.handle();
        thread::spawn(move || {
            handle.set_metadata("plan", "paid");
            handle.set_metadata("thread", 2);
        })
        .join()
        .expect("no panic");
        run.set_metadata("thread", 3);
        run.set_metadata("model", "gpt-5");
        let expected = json!({
            "environment": "test", "model": "gpt-5", "plan": "paid", "thread": 3, "before the first poll": true,
        });
        let snapshot = run.telemetry().map(|telemetry| object(&telemetry.metadata));
        assert_eq!(snapshot, measured.then(|| expected.clone()));
        while run.next().await.is_some() {}
        run.set_metadata("late", true);
        run.handle().set_metadata("late", true);

        assert_eq!(*finished.lock().expect("no panic"), Some(expected.clone()));
        let Some(OwnedEvent::Finished {
            metadata,
            telemetry,
            ..
        }) = captured.events().pop()
        else {
            panic!("it has finished");
        };
        assert_eq!(object(&metadata), expected);
        for telemetry in [
            telemetry.map(|telemetry| *telemetry),
            run.telemetry(),
            run.handle().telemetry(),
        ] {
            assert_eq!(telemetry.is_some(), measured);
            let Some(telemetry) = telemetry else { continue };
            assert_eq!(object(&telemetry.metadata), expected);
            assert_eq!(
                telemetry.attempts[0].model.as_deref(),
                Some("gpt-4"),
                "as it was requested"
            );
        }
        let at_start = json!({ "environment": "test", "model": "gpt-4", "plan": "free" });
        assert_eq!(object(run.info().metadata()), at_start);
        assert_eq!(
            object(&run.info().source(1).expect("one").metadata),
            at_start
        );
    }
}

/// Keeps the handle of a run, and sets an entry when one of its attempts has ended.
#[tokio::test(start_paused = true)]
async fn an_entry_set_by_an_observer_of_the_last_attempt_is_recorded() {
    use std::sync::{Arc, OnceLock};

    struct Watches(Arc<OnceLock<l0_core::RunHandle>>);
    impl Interceptor for Watches {
        fn observe(&self, _: &RunInfo, observers: &mut Observers) {
            struct Observer(Arc<OnceLock<l0_core::RunHandle>>);
            impl l0_core::Observer for Observer {
                fn on_event(&mut self, event: &l0_core::Event<'_>) {
                    if let (l0_core::Event::AttemptFinished { .. }, Some(handle)) =
                        (event, self.0.get())
                    {
                        handle.set_metadata("ended", true);
                    }
                }
            }
            observers.push(Observer(Arc::clone(&self.0)));
        }
    }

    let handle = Arc::new(OnceLock::new());
    let l0 = L0::builder()
        .monitoring(Monitoring::new())
        .interceptor(Watches(Arc::clone(&handle)))
        .build();
    let mut run = l0
        .stream(Script::new().attempt(|a| a.token("Hello")).source())
        .start();
    assert!(handle.set(run.handle()).is_ok());
    run.text().await.expect("it completes");
    let telemetry = run.telemetry().expect("measured");
    assert_eq!(object(&telemetry.metadata), json!({ "ended": true }));
}

#[tokio::test(start_paused = true)]
async fn related_runs_have_a_parent_and_share_its_conversation() {
    let captured = Captured::new();
    let l0 = L0::builder()
        .monitoring(Monitoring::new())
        .interceptor(captured.clone())
        .build();
    let script = || Script::new().attempt(|a| a.wait(MS).token("Hello"));
    let mut agent = l0.call(script().answers()).conversation_id("c1").start();
    let mut step = l0.stream(script().source()).parent(agent.info()).start();
    let mut nested = l0.call(script().answers()).parent(step.info()).start();
    let mut watched = l0.watch(script().stream()).parent(step.info()).start();
    let mut other = l0
        .stream(script().source())
        .parent(agent.info())
        .conversation_id("c2")
        .start();

    assert_eq!(agent.info().parent_id(), None);
    assert_eq!(step.info().parent_id(), Some(agent.info().id()));
    assert_eq!(nested.info().parent_id(), Some(step.info().id()));
    assert_eq!(watched.info().parent_id(), Some(step.info().id()));
    let conversation = |info: &RunInfo| info.metadata()["conversation_id"].clone();
    for info in [agent.info(), step.info(), nested.info(), watched.info()] {
        assert_eq!(conversation(info), "c1");
    }
    assert_eq!(conversation(other.info()), "c2");
    assert_eq!(
        step.telemetry()
            .and_then(|telemetry| telemetry.parent_id)
            .as_deref(),
        Some(agent.info().id())
    );
    assert_eq!(l0.live(), 5);

    step.text().await.expect("it completes");
    (&mut nested).await.expect("it completes");
    while watched.next().await.is_some() {}
    other.text().await.expect("it completes");
    (&mut agent).await.expect("it completes");
    let reported: Vec<_> = [
        step.telemetry(),
        nested.telemetry(),
        watched.telemetry(),
        other.telemetry(),
        agent.telemetry(),
    ]
    .into_iter()
    .map(|telemetry| {
        let telemetry = telemetry.expect("measured");
        let json: Value = serde_json::to_value(&telemetry).expect("JSON");
        assert_eq!(
            json.get("parentId").and_then(Value::as_str),
            telemetry.parent_id.as_deref()
        );
        (
            telemetry.parent_id,
            telemetry.metrics.total_tokens,
            telemetry.metrics.attempts,
        )
    })
    .collect();
    let id = |info: &RunInfo| Some(info.id().to_owned());
    let (of_agent, of_step) = (id(agent.info()), id(step.info()));
    assert_eq!(
        reported,
        [
            (of_agent.clone(), 1, 1),
            (of_step.clone(), 0, 1),
            (of_step, 1, 1),
            (of_agent, 1, 1),
            (None, 0, 1),
        ],
        "nothing is counted twice"
    );
    assert_eq!(
        captured
            .kinds()
            .iter()
            .filter(|kind| **kind == "finished")
            .count(),
        5
    );
    assert_eq!(l0.live(), 0);

    // A parent cannot change the entries set on the `L0`.
    let shared = l0
        .to_builder()
        .monitoring(Monitoring::new().metadata("conversation_id", "all"))
        .build();
    let run = shared
        .stream(script().source())
        .parent(agent.info())
        .start();
    assert_eq!(conversation(run.info()), "all");
    let alone = l0
        .stream(script().source())
        .parent(shared.watch(script().stream()).start().info())
        .start();
    assert_eq!(conversation(alone.info()), "all");
}

#[test]
fn a_source_made_of_a_closure_takes_metadata_of_any_json_type() {
    let named = source(|_| std::future::ready(Err::<(), _>(std::io::Error::other("no"))))
        .metadata("model", "gpt-4")
        .metadata("tags", json!(["a", 1]))
        .metadata("model", "gpt-5");
    assert_eq!(
        json!(named.describe().metadata),
        json!({ "model": "gpt-5", "tags": ["a", 1] })
    );
}
