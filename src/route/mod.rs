//! Where a call goes: a route's targets in order, or one model of one provider.

pub mod allowance;
pub mod condition;
pub mod health;
pub mod histogram;
pub mod load;
pub mod plan;
pub mod strategy;
pub mod task;

use std::collections::BTreeMap;

/// The names that a `model` can be.
#[derive(Debug, Default)]
pub struct Routes {
    /// Route names, with their place in the config's order.
    routes: BTreeMap<String, usize>,
    /// What each provider is said to serve.
    providers: BTreeMap<String, Vec<String>>,
}

/// What a `model` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice<'a> {
    /// The route with this number.
    Route(usize),
    Direct {
        provider: &'a str,
        model: &'a str,
    },
}

/// A `model` that names nothing, with the nearest name that would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    pub nearest: Option<String>,
}

impl Routes {
    pub fn new(
        routes: impl IntoIterator<Item = String>,
        providers: BTreeMap<String, Vec<String>>,
    ) -> Self {
        let routes = routes.into_iter().enumerate().map(|(place, name)| (name, place)).collect();
        Self { routes, providers }
    }

    /// A route's name, `provider/model`, or a bare model that exactly one provider lists.
    pub fn resolve<'a>(&'a self, model: &'a str) -> Result<Choice<'a>, Unknown> {
        if let Some(&place) = self.routes.get(model) {
            return Ok(Choice::Route(place));
        }
        if let Some((provider, rest)) = model.split_once('/')
            && !rest.is_empty()
            && let Some((provider, _)) = self.providers.get_key_value(provider)
        {
            return Ok(Choice::Direct { provider, model: rest });
        }
        let lists = |(_, models): &(&String, &Vec<String>)| models.iter().any(|name| name == model);
        let mut listing = self.providers.iter().filter(lists);
        match (listing.next(), listing.next()) {
            (Some((provider, _)), None) => Ok(Choice::Direct { provider, model }),
            _ => Err(Unknown { nearest: self.nearest(model) }),
        }
    }

    /// Every name that can be asked for, routes first.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let models = self.providers.iter().flat_map(|(provider, models)| {
            models.iter().map(move |model| format!("{provider}/{model}"))
        });
        self.routes.keys().cloned().chain(models)
    }

    fn nearest(&self, model: &str) -> Option<String> {
        let similarity = |name: &String| strsim::jaro_winkler(name, model);
        self.names()
            .filter(|name| similarity(name) > 0.7)
            .max_by(|left, right| similarity(left).total_cmp(&similarity(right)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes() -> Routes {
        let providers = [
            ("openai".to_owned(), vec!["gpt-5".to_owned(), "shared".to_owned()]),
            ("local".to_owned(), vec!["org/llama".to_owned(), "shared".to_owned()]),
        ];
        Routes::new(["fast".to_owned(), "gpt-5".to_owned()], providers.into())
    }

    #[test]
    fn resolves_routes_first_then_providers_then_bare_names() {
        let routes = routes();
        assert_eq!(routes.resolve("gpt-5"), Ok(Choice::Route(1)));
        let direct = |provider, model| Ok(Choice::Direct { provider, model });
        assert_eq!(routes.resolve("openai/gpt-5"), direct("openai", "gpt-5"));
        assert_eq!(routes.resolve("local/org/other"), direct("local", "org/other"));
        assert_eq!(routes.resolve("org/llama"), direct("local", "org/llama"));
    }

    #[test]
    fn refuses_what_nobody_or_more_than_one_lists_and_names_the_nearest() {
        let routes = routes();
        assert!(routes.resolve("shared").is_err());
        assert_eq!(routes.resolve("fsat").unwrap_err().nearest.as_deref(), Some("fast"));
        assert_eq!(routes.resolve("zzzzzz").unwrap_err().nearest, None);
        assert!(routes.resolve("openai/").is_err());
    }
}
