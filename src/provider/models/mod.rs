//! Finds what is known of a model by its provider kind and its name, in any usual spelling.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::LazyLock;

use super::catalog::Kind;
use crate::canon::{Feature, Features, Model, Price, Rates, Tier};
use crate::config::ModelOverride;

/// The bundled table. The tests read every row of it, so it is never without one.
static TABLE: LazyLock<Table<'static>> =
    LazyLock::new(|| read(include_str!("table.txt")).unwrap_or_default());

type Table<'a> = HashMap<&'a str, Section<'a>>;

/// The models of one provider kind.
#[derive(Debug, Default)]
struct Section<'a> {
    models: HashMap<&'a str, Model>,
    /// What is said of all models whose names end so.
    endings: Vec<(&'a str, Model)>,
    /// The name of the last row, for tiers that follow it.
    last: &'a str,
}

/// What may stand before a name and changes nothing: Google's folder, and the regions of Bedrock.
const PREFIXES: [&str; 10] =
    ["models/", "us.", "us-gov.", "eu.", "apac.", "jp.", "au.", "ca.", "sa.", "global."];

/// How OpenRouter may be told to choose among the providers of a model. Its `:free` is another
/// model, and has a row.
const VARIANTS: [&str; 5] = ["nitro", "floor", "online", "exacto", "beta"];

/// All that is known of a model: what the operator wrote, else what the table says.
pub fn resolve(kind: &Kind, model: &str, overrides: Option<&ModelOverride>) -> Model {
    let known = find(kind.id, model).cloned().unwrap_or_default();
    let Some(written) = overrides else { return known };
    Model {
        context: written.context.or(known.context),
        max_output: written.max_output.or(known.max_output),
        price: written.price.clone().or(known.price),
        features: written.features.unwrap_or(known.features),
    }
}

/// The row of a model. One that a reseller names otherwise than its maker is not looked for: its
/// price is its own.
pub fn find(kind_id: &str, model: &str) -> Option<&'static Model> {
    let section = TABLE.get(kind_id)?;
    let bare = PREFIXES.iter().find_map(|prefix| model.strip_prefix(prefix));
    let spelled = [Some(model), bare].into_iter().flatten().find_map(|name| {
        std::iter::successors(Some(name), |name| shorter(name))
            .find_map(|name| section.models.get(name))
    });
    spelled.or_else(|| {
        let (_, model) = section.endings.iter().find(|(ending, _)| model.ends_with(ending))?;
        Some(model)
    })
}

/// The name without the last thing that says which edition of the model is meant.
fn shorter(name: &str) -> Option<&str> {
    let latest = name.strip_suffix("-latest");
    let variant =
        || name.rsplit_once(':').filter(|(_, word)| VARIANTS.contains(word)).map(|(name, _)| name);
    latest.or_else(variant).or_else(|| without_version(name)).or_else(|| without_date(name))
}

/// Without Bedrock's `-v1:0`.
fn without_version(name: &str) -> Option<&str> {
    let (rest, minor) = name.rsplit_once(':')?;
    let (rest, major) = rest.rsplit_once("-v")?;
    (is_number(major) && is_number(minor)).then_some(rest)
}

/// Without `-2024-08-06`, `-20240806` or `@20240806`.
fn without_date(name: &str) -> Option<&str> {
    let (rest, last) = name.rsplit_once(['-', '@'])?;
    if !is_number(last) {
        return None;
    }
    match last.len() {
        8 => last.starts_with("20").then_some(rest),
        2 => {
            let (rest, month) = rest.rsplit_once('-')?;
            let (rest, year) = rest.rsplit_once('-')?;
            let is_date = month.len() == 2 && year.len() == 4 && year.starts_with("20");
            (is_date && is_number(month) && is_number(year)).then_some(rest)
        }
        _ => None,
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

// === Reading the table ===

/// The form of the table is told at its top.
fn read(text: &str) -> Result<Table<'_>, String> {
    let (mut table, mut kind) = (Table::new(), "");
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let heading = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let outcome = match heading {
            Some(name) => {
                kind = name;
                let twice = table.insert(name, Section::default()).is_some();
                if twice { Err("stands here twice".to_owned()) } else { Ok(()) }
            }
            None => table.entry(kind).or_default().add(line),
        };
        outcome.map_err(|fault| format!("line {}: {line:?} {fault}", at + 1))?;
    }
    Ok(table)
}

impl<'a> Section<'a> {
    fn add(&mut self, line: &'a str) -> Result<(), String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [">", above, rates @ ..] = words.as_slice() {
            let model = self.models.get_mut(self.last);
            let price = model.and_then(|model| model.price.as_mut());
            let price = price.ok_or("follows no price")?;
            let rates = read_rates(rates)?.ok_or("has no price")?;
            price.tiers.push(Tier { above: value(above)?, rates });
            return Ok(());
        }
        let [name, context, max_output, prices @ ..] = words.as_slice() else {
            return Err("is no row".to_owned());
        };
        let (prices, rest) = prices.split_at_checked(5).ok_or("has too few columns")?;
        let (features, extras) = rest.split_first().ok_or("has no features")?;
        let mut model = Model {
            context: optional(context)?,
            max_output: optional(max_output)?,
            price: read_rates(prices)?.map(|rates| Price { rates, tiers: Vec::new() }),
            features: read_features(features)?,
        };
        for extra in extras {
            let price = model.price.as_mut().ok_or("has a part of a price only")?;
            read_extra(extra, &mut price.rates)?;
        }
        if let Some(ending) = name.strip_prefix('*') {
            self.endings.push((ending, model));
            return Ok(());
        }
        self.last = name;
        let twice = self.models.insert(name, model).is_some();
        if twice { Err("stands here twice".to_owned()) } else { Ok(()) }
    }
}

/// Input, output, cache read, cache write and an hour's; none if the input's is unknown.
fn read_rates(words: &[&str]) -> Result<Option<Rates>, String> {
    let [input, output, read, write, hour] = words else {
        return Err("does not have five prices".to_owned());
    };
    match *input {
        "-" => Ok(None),
        "free" => Ok(Some(Rates::default())),
        input => Ok(Some(Rates {
            input: value(input)?,
            output: value(output)?,
            cache_read: optional(read)?,
            cache_write: optional(write)?,
            cache_write_hour: optional(hour)?,
            ..Rates::default()
        })),
    }
}

fn read_extra(word: &str, rates: &mut Rates) -> Result<(), String> {
    match word.split_once('=') {
        Some(("reasoning", output)) => rates.reasoning = optional(output)?,
        Some(("audio", both)) => {
            let (input, output) = both.split_once('/').ok_or("has audio without a `/`")?;
            (rates.audio_input, rates.audio_output) = (optional(input)?, optional(output)?);
        }
        _ => return Err(format!("has an unknown column {word:?}")),
    }
    Ok(())
}

fn read_features(word: &str) -> Result<Features, String> {
    let one = |name| Feature::from_name(name).ok_or_else(|| format!("has no feature {name:?}"));
    match word {
        "?" => Ok(Features::UNKNOWN),
        "none" => Ok([].into_iter().collect()),
        list => list.split(',').map(one).collect(),
    }
}

fn optional<T: FromStr>(word: &str) -> Result<Option<T>, String>
where
    T::Err: std::fmt::Display,
{
    if word == "-" { Ok(None) } else { value(word).map(Some) }
}

fn value<T: FromStr>(word: &str) -> Result<T, String>
where
    T::Err: std::fmt::Display,
{
    word.parse().map_err(|error| format!("has {word:?}, which {error}"))
}

#[cfg(test)]
mod tests;
