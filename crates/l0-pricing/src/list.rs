//! Price list: the prices of models by name, in layers.

use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::sync::Arc;

use l0_core::{Price, Priced, Pricing};

use crate::litellm::{self, Entry, PriceListError, ServiceTier, Skipped};
use crate::names;

/// The prices of models. See the [crate documentation](crate) for how a model is looked up.
///
/// Cheap to clone.
#[derive(Clone, Default)]
pub struct PriceList {
    /// The upper layer first.
    layers: Vec<Arc<Layer>>,
    names: Arc<Names>,
}

/// Other names of models and providers, in all layers.
#[derive(Clone, Default)]
struct Names {
    models: HashMap<String, String>,
    providers: HashMap<String, String>,
}

impl Names {
    /// Returns the provider whose prices this one charges.
    fn provider(&self, name: &str) -> Option<&str> {
        let provider = self.providers.get(name)?;
        Some(names::provider(provider))
    }
}

#[derive(Clone, Default)]
struct Layer {
    models: HashMap<String, Entry>,
    date: Option<String>,
    skipped: Vec<Skipped>,
}

impl PriceList {
    /// Creates a list without models.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a list in LiteLLM's JSON layout, up to 64 MiB. Its currency is the US dollar.
    ///
    /// [`skipped`](Self::skipped) returns entries with unusable values.
    ///
    /// # Errors
    ///
    /// Returns an error if the list cannot be read, is longer, or is not a JSON object.
    pub fn from_reader(reader: impl Read) -> Result<Self, PriceListError> {
        Self::from_reader_at(reader, ServiceTier::Standard)
    }

    /// Reads a list in LiteLLM's JSON layout, with the prices of a service tier. Models without prices
    /// for this tier are not in the list.
    ///
    /// # Errors
    ///
    /// The same as those of [`from_reader`](Self::from_reader).
    pub fn from_reader_at(reader: impl Read, tier: ServiceTier) -> Result<Self, PriceListError> {
        let (models, skipped) = litellm::read(reader, tier)?;
        let layer = Layer {
            models,
            skipped,
            ..Layer::default()
        };
        Ok(Self {
            layers: vec![Arc::new(layer)],
            ..Self::default()
        })
    }

    /// Sets the price of a model, whatever its provider.
    #[must_use]
    pub fn model(self, model: impl Into<String>, price: Price) -> Self {
        self.entry(model.into(), None, price)
    }

    /// Sets the price of a model of one provider, named as in runs: `azure.ai.openai`.
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

    /// Maps a name, such as that of a deployment, to a model of the list.
    ///
    /// ```
    /// use l0_pricing::PriceList;
    ///
    /// let prices = PriceList::new().alias("chat-production-eu", "azure/gpt-4o");
    /// ```
    #[must_use]
    pub fn alias(mut self, name: impl Into<String>, model: impl Into<String>) -> Self {
        let names = Arc::make_mut(&mut self.names);
        names.models.insert(name.into(), model.into());
        self
    }

    /// Uses the prices of `provider` for another provider, such as a gateway that passes them on. A model that
    /// `provider` does not have is searched under its own provider.
    ///
    /// ```
    /// use l0_pricing::PriceList;
    ///
    /// let prices = PriceList::new().provider("gateway", "openai");
    /// ```
    #[must_use]
    pub fn provider(mut self, name: impl Into<String>, provider: impl Into<String>) -> Self {
        let names = Arc::make_mut(&mut self.names);
        names.providers.insert(name.into(), provider.into());
        self
    }

    /// Sets the date of the prices, as free text. [`dates`](Self::dates) returns it.
    #[must_use]
    pub fn dated(self, date: impl Into<String>) -> Self {
        self.change(|layer| layer.date = Some(date.into()))
    }

    /// Puts this list over another one, which is searched for models that this one does not have. Aliases and
    /// providers of both lists apply to all models. Those of this list take precedence.
    #[must_use]
    pub fn over(mut self, under: Self) -> Self {
        self.layers.extend(under.layers);
        let names = Arc::make_mut(&mut self.names);
        let under = Arc::unwrap_or_clone(under.names);
        for (name, model) in under.models {
            names.models.entry(name).or_insert(model);
        }
        for (name, provider) in under.providers {
            names.providers.entry(name).or_insert(provider);
        }
        self
    }

    /// Returns the number of models.
    #[must_use]
    pub fn len(&self) -> usize {
        self.layers.iter().map(|layer| layer.models.len()).sum()
    }

    /// Returns `true` if the list has no models.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the dates of the layers that have one, the upper one first.
    pub fn dates(&self) -> impl Iterator<Item = &str> {
        self.layers.iter().filter_map(|layer| layer.date.as_deref())
    }

    /// Returns the entries of files that could not be used, with the reasons.
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
    fn price(&self, model: &Priced<'_>, other: &Names) -> Option<&Arc<Price>> {
        // A provider that charges the prices of another one can have some of its own.
        let own = model.provider.map(names::provider);
        let charged = model.provider.and_then(|provider| other.provider(provider));
        let providers = || charged.map(Some).into_iter().chain([own]);
        let names = [model.response_model, model.model];
        let names = || names.into_iter().flatten();
        let aliases = names().filter_map(|name| other.models.get(name));
        // An alias of a deployment applies whatever its provider.
        let aliases = aliases.map(|model| (None, model.as_str()));
        // A router can answer with another model than the requested one.
        let names = names().flat_map(|name| [Some(name), names::undated(name)]);
        let names = names.flatten();
        let names = names.flat_map(|name| providers().map(move |provider| (provider, name)));
        aliases
            .chain(names)
            .find_map(|(provider, name)| self.find(provider, name, other))
    }

    /// Searches for a name as it is, then under the provider in its prefix.
    fn find(&self, provider: Option<&str>, name: &str, other: &Names) -> Option<&Arc<Price>> {
        if let Some(price) = self.find_of(provider, name) {
            return Some(price);
        }
        let (prefix, rest) = name.split_once('/')?;
        let charged = other.provider(prefix);
        let prefix = charged.unwrap_or_else(|| names::provider(prefix));
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
        let mut layers = self.layers.iter();
        let price = layers.find_map(|layer| layer.price(model, &self.names));
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
