//! Price list: what models cost, by their names, in layers.

use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::sync::Arc;

use l0_core::{Price, Priced, Pricing};

use crate::litellm::{self, Entry, PriceListError, ServiceTier, Skipped};
use crate::names;

/// What models cost. See the [crate's page](crate) for how a model is found.
///
/// Cheap to clone.
#[derive(Clone, Default)]
pub struct PriceList {
    /// The upper one first.
    layers: Vec<Arc<Layer>>,
}

#[derive(Clone, Default)]
struct Layer {
    models: HashMap<String, Entry>,
    aliases: HashMap<String, String>,
    providers: HashMap<String, String>,
    date: Option<String>,
    skipped: Vec<Skipped>,
}

impl PriceList {
    /// Creates a list without models.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a list in LiteLLM's JSON layout, at most 64 MiB of it. Its currency is the dollar of the
    /// United States.
    ///
    /// What it has of an entry that cannot be used stands in [`skipped`](Self::skipped).
    ///
    /// # Errors
    ///
    /// If it cannot be read, is longer, or is not a JSON object.
    pub fn from_reader(reader: impl Read) -> Result<Self, PriceListError> {
        Self::from_reader_at(reader, ServiceTier::Standard)
    }

    /// Reads a list in LiteLLM's JSON layout, with the prices of a service tier. A model that has none
    /// there is not in the list.
    ///
    /// # Errors
    ///
    /// As [`from_reader`](Self::from_reader).
    pub fn from_reader_at(reader: impl Read, tier: ServiceTier) -> Result<Self, PriceListError> {
        let (models, skipped) = litellm::read(reader, tier)?;
        let layer = Layer {
            models,
            skipped,
            ..Layer::default()
        };
        Ok(Self {
            layers: vec![Arc::new(layer)],
        })
    }

    /// Sets the price of a model, whoever serves it.
    #[must_use]
    pub fn model(self, model: impl Into<String>, price: Price) -> Self {
        self.entry(model.into(), None, price)
    }

    /// Sets the price of a model of one provider, in the words by which runs name it: `azure.ai.openai`.
    #[must_use]
    pub fn model_of(self, provider: &str, model: impl AsRef<str>, price: Price) -> Self {
        let provider = names::provider(provider);
        let name = format!("{provider}/{}", model.as_ref());
        self.entry(name, Some(provider.to_owned()), price)
    }

    fn entry(self, name: String, provider: Option<String>, price: Price) -> Self {
        let price = Arc::new(price);
        self.change(|layer| {
            layer.models.insert(name, Entry { provider, price });
        })
    }

    /// Sets which model of the list a name stands for, such as that of a deployment.
    ///
    /// ```
    /// use l0_pricing::PriceList;
    ///
    /// let prices = PriceList::new().alias("chat-production-eu", "azure/gpt-4o");
    /// ```
    #[must_use]
    pub fn alias(self, name: impl Into<String>, model: impl Into<String>) -> Self {
        self.change(|layer| {
            layer.aliases.insert(name.into(), model.into());
        })
    }

    /// Sets whose prices hold for a provider, such as a gateway that passes them on.
    ///
    /// ```
    /// use l0_pricing::PriceList;
    ///
    /// let prices = PriceList::new().provider("gateway", "openai");
    /// ```
    #[must_use]
    pub fn provider(self, name: impl Into<String>, provider: impl Into<String>) -> Self {
        self.change(|layer| {
            layer.providers.insert(name.into(), provider.into());
        })
    }

    /// Sets when its prices were valid, in your own words. [`dates`](Self::dates) returns it.
    #[must_use]
    pub fn dated(self, date: impl Into<String>) -> Self {
        self.change(|layer| layer.date = Some(date.into()))
    }

    /// Lays this list over another one, which is asked for what this one does not have.
    #[must_use]
    pub fn over(mut self, under: Self) -> Self {
        self.layers.extend(under.layers);
        self
    }

    /// Returns how many models it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.layers.iter().map(|layer| layer.models.len()).sum()
    }

    /// Returns whether it has no model.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the dates of its layers, of those that have one, the upper one first.
    pub fn dates(&self) -> impl Iterator<Item = &str> {
        self.layers.iter().filter_map(|layer| layer.date.as_deref())
    }

    /// Returns the entries of files that could not be used, and why.
    pub fn skipped(&self) -> impl Iterator<Item = &Skipped> {
        self.layers.iter().flat_map(|layer| &layer.skipped)
    }

    /// Changes the uppermost layer.
    fn change(mut self, change: impl FnOnce(&mut Layer)) -> Self {
        if self.layers.is_empty() {
            self.layers.push(Arc::default());
        }
        if let Some(layer) = self.layers.first_mut() {
            change(Arc::make_mut(layer));
        }
        self
    }
}

impl Layer {
    fn price(&self, asked: &Priced<'_>) -> Option<&Arc<Price>> {
        let provider = asked.provider.map(|provider| {
            let alias = self.providers.get(provider);
            names::provider(alias.map_or(provider, String::as_str))
        });
        let asked = [asked.response_model, asked.model];
        let asked = || asked.into_iter().flatten();
        let aliases = asked().filter_map(|name| self.aliases.get(name));
        // What is said of a deployment holds wherever it runs.
        let aliases = aliases.map(|model| (None, model.as_str()));
        // A router answers with another model than the one that was asked for.
        let names = asked().flat_map(|name| [Some(name), names::undated(name)]);
        let names = names.flatten().map(|name| (provider, name));
        aliases
            .chain(names)
            .find_map(|(provider, name)| self.find(provider, name))
    }

    /// Looks for a name as it is, then under the provider that stands before it.
    fn find(&self, provider: Option<&str>, name: &str) -> Option<&Arc<Price>> {
        if let Some(price) = self.find_of(provider, name) {
            return Some(price);
        }
        let (prefix, rest) = name.split_once('/')?;
        let prefix = names::provider(prefix);
        let provider = provider.unwrap_or(prefix);
        (prefix == provider || prefix == "models")
            .then(|| self.find_of(Some(provider), rest))
            .flatten()
    }

    fn find_of(&self, provider: Option<&str>, name: &str) -> Option<&Arc<Price>> {
        let entry = match provider {
            Some(provider) => {
                let prefixed = self.models.get(&format!("{provider}/{name}"));
                prefixed.or_else(|| self.models.get(name))
            }
            None => self.models.get(name),
        };
        let entry = entry.filter(|entry| match (&entry.provider, provider) {
            (Some(entry), Some(provider)) => names::is_of(entry, provider),
            _ => true,
        });
        entry.map(|entry| &entry.price)
    }
}

impl Pricing for PriceList {
    fn price(&self, model: &Priced<'_>) -> Option<Arc<Price>> {
        let price = self.layers.iter().find_map(|layer| layer.price(model));
        price.cloned()
    }
}

impl fmt::Debug for PriceList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PriceList")
            .field("models", &self.len())
            .field("dates", &self.dates().collect::<Vec<_>>())
            .field("skipped", &self.skipped().count())
            .finish()
    }
}
