//! What a condition may ask about a call, and by which names.

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};

use super::{Facts, Known};

/// Deeper expressions nobody reads. The interpreter calls itself for each level, which takes up
/// to 60 KiB of stack when it is not optimised.
pub(super) const DEEPEST: u32 = 16;

const HEADERS: &str = "request.headers";
const TAGS: &str = "tags";

type Read = for<'a> fn(&Facts<'a>) -> Known<'a>;

const PLAIN: [(&str, Read); 14] = [
    ("request.model", |facts| Known::Text(facts.model)),
    ("request.surface", |facts| Known::Text(facts.surface)),
    ("request.tokens", |facts| Known::Number((facts.tokens)())),
    ("request.max_tokens", |facts| Known::Number(facts.max_tokens)),
    ("request.stream", |facts| Known::Flag(facts.stream)),
    ("request.tools", |facts| Known::Number(facts.tools)),
    ("request.images", |facts| Known::Flag(facts.images)),
    ("key.name", |facts| Known::Text(facts.key)),
    ("key.team", |facts| Known::Text(facts.team)),
    ("task", |facts| Known::Text((facts.task)().unwrap_or_default())),
    ("time.hour", |facts| Known::Number(facts.unix / 3600 % 24)),
    // 1970 began on a Thursday.
    ("time.weekday", |facts| Known::Number((facts.unix / 86_400 + 3) % 7)),
    ("time.unix", |facts| Known::Number(facts.unix)),
    ("budget.left", |facts| Known::Share(facts.budget_left)),
];

/// One thing that a condition asks of the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    /// A row of `PLAIN`.
    Plain(usize),
    /// The value of a header or tag; one that is missing is empty, so that it equals nothing
    /// and is no error.
    Header(String),
    Tag(String),
    /// Whether there is one.
    HasHeader(String),
    HasTag(String),
}

/// Puts numbers in the place of names, and says what they stand for.
pub(super) fn bind(expression: &mut IdedExpr) -> Result<Vec<Fact>, String> {
    let mut binder = Binder::default();
    binder.bind(expression, 0)?;
    Ok(binder.facts)
}

#[derive(Default)]
struct Binder {
    facts: Vec<Fact>,
}

// === impl Fact ===

impl Fact {
    pub(super) fn answer<'a>(&self, facts: &Facts<'a>) -> Known<'a> {
        let (header, tag) = (facts.header, facts.tag);
        match self {
            Self::Plain(row) => PLAIN[*row].1(facts),
            Self::Header(name) => Known::Text(header(name).unwrap_or_default()),
            Self::Tag(name) => Known::Text(tag(name).unwrap_or_default()),
            Self::HasHeader(name) => Known::Flag(header(name).is_some()),
            Self::HasTag(name) => Known::Flag(tag(name).is_some()),
        }
    }
}

// === impl Binder ===

impl Binder {
    fn bind(&mut self, node: &mut IdedExpr, depth: u32) -> Result<(), String> {
        if depth > DEEPEST {
            return Err(format!("is nested more than {DEEPEST} deep"));
        }
        if let Some(fact) = fact(&node.expr)? {
            let known = self.facts.iter().position(|known| *known == fact);
            let place = known.unwrap_or(self.facts.len());
            if known.is_none() {
                self.facts.push(fact);
            }
            node.expr = Expr::Ident(place.to_string());
            return Ok(());
        }
        let mut bind = |node: &mut IdedExpr| self.bind(node, depth + 1);
        match &mut node.expr {
            Expr::Literal(_) => Ok(()),
            Expr::Call(call) => {
                let target = call.target.as_deref_mut();
                target.into_iter().chain(&mut call.args).try_for_each(bind)
            }
            Expr::Select(select) => bind(&mut select.operand),
            Expr::List(list) => list.elements.iter_mut().try_for_each(bind),
            Expr::Map(map) => map.entries.iter_mut().try_for_each(|entry| match &mut entry.expr {
                EntryExpr::MapEntry(entry) => {
                    [&mut entry.key, &mut entry.value].into_iter().try_for_each(&mut bind)
                }
                EntryExpr::StructField(field) => bind(&mut field.value),
            }),
            Expr::Comprehension(_) => {
                Err("loops (`all`, `exists`, `exists_one`, `map`, `filter`), which conditions \
                     may not; to look for a value in a list there is `in`"
                    .to_owned())
            }
            // A name would have been one of ours, or refused.
            Expr::Ident(_) | Expr::Struct(_) | Expr::Unspecified => {
                Err("has a part that conditions do not know".to_owned())
            }
        }
    }
}

/// The fact that a part of an expression asks for, if it is a name or something like `tags["a"]`.
fn fact(part: &Expr) -> Result<Option<Fact>, String> {
    match part {
        Expr::Ident(_) => path(part).map_or(Ok(None), |path| named(&path).map(Some)),
        Expr::Select(select) if select.test => match path(&select.operand.expr) {
            Some(map) if is_map(&map) => Ok(Some(presence(&map, &select.field))),
            Some(_) => Err(format!("`has` is for `{HEADERS}` and `{TAGS}`")),
            None => Ok(None),
        },
        Expr::Select(_) => path(part).map_or(Ok(None), |path| named(&path).map(Some)),
        Expr::Call(call) => looked_up(call),
        _ => Ok(None),
    }
}

/// `tags["a"]` and `"a" in tags`.
fn looked_up(call: &CallExpr) -> Result<Option<Fact>, String> {
    let [first, second] = call.args.as_slice() else { return Ok(None) };
    let (map, name) = match call.func_name.as_str() {
        operators::INDEX => (first, second),
        operators::IN => (second, first),
        _ => return Ok(None),
    };
    let Some(map) = path(&map.expr).filter(|map| is_map(map)) else { return Ok(None) };
    let Expr::Literal(LiteralValue::String(name)) = &name.expr else {
        return Err(format!("the name in `{map}[…]` and `… in {map}` stands in quotes"));
    };
    let present = call.func_name == operators::IN;
    Ok(Some(if present { presence(&map, name) } else { entry(&map, name) }))
}

fn named(path: &str) -> Result<Fact, String> {
    if let Some(row) = PLAIN.iter().position(|(name, _)| *name == path) {
        return Ok(Fact::Plain(row));
    }
    if let Some((map, name)) = path.rsplit_once('.')
        && is_map(map)
    {
        return Ok(entry(map, name));
    }
    if is_map(path) {
        return Err(format!(
            "`{path}` is asked for one name: `{path}[\"…\"]` or `\"…\" in {path}`"
        ));
    }
    Err(unknown(path, PLAIN.iter().map(|(name, _)| *name).chain([HEADERS, TAGS])))
}

/// That there is no such name, and which may be meant.
pub(super) fn unknown(path: &str, names: impl Iterator<Item = &'static str>) -> String {
    let similarity = |name: &str| strsim::jaro_winkler(name, path);
    let nearest = names
        .filter(|name| similarity(name) > 0.7)
        .max_by(|one, other| similarity(one).total_cmp(&similarity(other)));
    match nearest {
        Some(name) => format!("knows no `{path}`; is it `{name}`?"),
        None => format!("knows no `{path}`"),
    }
}

fn is_map(path: &str) -> bool {
    path == HEADERS || path == TAGS
}

fn entry(map: &str, name: &str) -> Fact {
    if map == TAGS { Fact::Tag(name.to_owned()) } else { Fact::Header(name.to_ascii_lowercase()) }
}

fn presence(map: &str, name: &str) -> Fact {
    match entry(map, name) {
        Fact::Tag(name) => Fact::HasTag(name),
        Fact::Header(name) => Fact::HasHeader(name),
        other => other,
    }
}

/// `a.b.c`, if the part is that and nothing else.
pub(super) fn path(part: &Expr) -> Option<String> {
    let mut names = Vec::new();
    let mut part = part;
    loop {
        match part {
            Expr::Ident(name) => {
                names.push(name.as_str());
                names.reverse();
                return Some(names.join("."));
            }
            Expr::Select(select) if !select.test => {
                names.push(select.field.as_str());
                part = &select.operand.expr;
            }
            _ => return None,
        }
    }
}
