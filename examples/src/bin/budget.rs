//! Cost and limits: a price list, a limit for each run, a budget for each tenant, and a ledger that is
//! checked before a run and charged after it.
//!
//! ```console
//! $ cargo run -p l0-examples --bin budget --features budget
//! ```
#![allow(clippy::print_stdout, reason = "it is a terminal program")]

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use l0_core::{
    Budget, Budgets, Currency, Interceptor, L0, Limits, Money, NewRun, Observers, Price, Refusal,
    RunInfo, TokenPrices, Usage,
};
use l0_pricing::PriceList;
use l0_providers::openai::{self, ChatRequest};
use l0_providers::testing::{Answer, ScriptedProvider};

/// The spent amount of each user. A service stores it in Redis or a database, and refreshes this copy in a
/// separate task: `start()` calls `before`, which must not wait.
#[derive(Debug, Clone)]
struct Ledger {
    limit: Money,
    spent: Arc<Mutex<HashMap<String, Money>>>,
}

impl Ledger {
    fn spent(&self, user: &str) -> Money {
        let spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        spent.get(user).copied().unwrap_or_default()
    }

    fn charge(&self, user: &str, amount: Money) {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        *spent.entry(user.to_owned()).or_default() += amount;
    }
}

impl Interceptor for Ledger {
    fn before(&self, run: &mut NewRun) -> Result<(), Refusal> {
        match run.metadata().get("user").and_then(|user| user.as_str()) {
            Some(user) if self.spent(user) >= self.limit => {
                Err(Refusal::new("the user has spent the limit"))
            }
            Some(_) => Ok(()),
            None => Err(Refusal::new("the run has no user")),
        }
    }

    fn observe(&self, run: &RunInfo, observers: &mut Observers) {
        let Some(user) = run.metadata().get("user").and_then(|user| user.as_str()) else {
            return;
        };
        let (ledger, user) = (self.clone(), user.to_owned());
        observers.on_finish(move |finished| {
            // The cost of all attempts, including discarded ones.
            let cost = finished
                .telemetry
                .and_then(|telemetry| telemetry.total_cost());
            if let Some(cost) = cost {
                ledger.charge(&user, cost.amount);
            }
        });
    }

    fn needs_telemetry(&self) -> bool {
        true
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let usage = Usage::new().input(1_200).cached_input(1_000).output(300);
    let answer = || Answer::text(["A monad ", "is a way ", "to chain steps."]).usage(usage);
    let server = ScriptedProvider::start([answer(), answer(), answer(), answer()]).await?;
    let client = openai::Client::new(&server.base_url())?.provider_name("openai");

    // A service reads a file with `PriceList::from_reader`, and overrides it with its own prices.
    let tokens =
        TokenPrices::per_million("0.15".parse()?, "0.60".parse()?).cached_input("0.075".parse()?);
    let prices = PriceList::new().model("gpt-4o-mini", Price::new(Currency::USD, tokens));

    let ledger = Ledger {
        limit: "0.0005".parse()?,
        spent: Arc::default(),
    };
    let day = Duration::from_secs(24 * 60 * 60);
    let tenants = Budgets::new(Budget::new("0.0007".parse()?).per(day));
    let l0 = L0::builder()
        .pricing(prices)
        .limits(Limits::new().output_tokens(4_000).cost(Money::cents(5)))
        .interceptor(ledger.clone())
        .build();

    let request = ChatRequest::new("gpt-4o-mini").user("What is a monad?");
    for user in ["ada", "ada", "ada", "bob", "eve"] {
        let tenant = tenants.of("acme");
        let mut run = l0
            .stream_from(client.chat(&request))
            .metadata("user", user)
            .budget(tenant.clone())
            .start();
        match run.text().await {
            Ok(text) => print!("{user}: {text}"),
            Err(error) => print!("{user}: {error}"),
        }
        let cost = run.telemetry().and_then(|telemetry| telemetry.total_cost());
        match cost {
            Some(cost) => println!(" -- {} {}", cost.amount, cost.currency),
            None => println!(),
        }
        println!(
            "  {user} has spent {}, acme has {} left",
            ledger.spent(user),
            tenant.left()
        );
    }
    Ok(())
}
