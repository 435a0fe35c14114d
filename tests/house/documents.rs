//! What the pages say about the tree is true: each path exists, each module is on the map.

use super::layers::modules;
use super::{Complaint, assert_clean, assert_complains, read, root};

const FOLDERS: [&str; 6] = ["src/", "tests/", "benches/", "dashboards/", "docs/", ".ci/"];
const ENDINGS: [&str; 9] = [".rs", ".md", ".toml", ".json", ".yml", ".sh", ".py", ".mjs", ".sse"];

/// What stands in single backticks outside fenced blocks, with its line.
fn quoted(page: &str) -> Vec<(usize, &str)> {
    let (mut found, mut fenced) = (Vec::new(), false);
    for (at, line) in page.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            found.extend(line.split('`').skip(1).step_by(2).map(|text| (at + 1, text)));
        }
    }
    found
}

/// `provider/model` and `/v1/models` are no paths; `net/tls.rs`, `src/net` and `net/` are.
fn is_path(text: &str) -> bool {
    let plain = !text.starts_with('/') && !text.contains([' ', ':', '*', '{', '<', '$', '"', '…']);
    let named = FOLDERS.iter().any(|folder| text.starts_with(folder)) || text.ends_with('/');
    let ending = ENDINGS.iter().any(|ending| text.ends_with(ending));
    plain && (named || (ending && (text.contains('/') || text.rsplit('.').next() == Some("rs"))))
}

fn map(name: &str, page: &str, exists: impl Fn(&str) -> bool) -> Vec<Complaint> {
    let lies = |(line, path): (usize, &str)| {
        (is_path(path) && !exists(path)).then(|| format!("{name}:{line}: `{path}` does not exist"))
    };
    quoted(page).into_iter().filter_map(lies).collect()
}

fn unmapped(modules: &[String], page: &str) -> Vec<Complaint> {
    let mapped = |module: &str| {
        ["`{}`", "`{}/", "`{}::", "mod {};"]
            .iter()
            .any(|form| page.contains(&form.replace("{}", module)))
    };
    let missing = modules.iter().filter(|module| !mapped(module));
    missing.map(|module| format!("src/README.md: the module `{module}` is missing")).collect()
}

/// The headings of a page as links name them.
fn anchors(page: &str) -> Vec<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| {
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        let text: String = line.trim_start_matches('#').trim().chars().filter(kept).collect();
        text.to_lowercase().replace(' ', "-")
    };
    headings.map(anchor).collect()
}

/// Links to other pages, and to headings of this one, that lead nowhere.
fn dead_links(name: &str, page: &str, read: impl Fn(&str) -> Option<String>) -> Vec<Complaint> {
    let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
    let targets = page.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let leads = |target: &str| {
        let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
        let found = match file {
            "" => Some(page.to_owned()),
            _ => match file.strip_prefix("../") {
                Some(file) => read(file),
                None => read(format!("{folder}/{file}").trim_start_matches('/')),
            },
        };
        found
            .is_some_and(|found| anchor.is_empty() || anchors(&found).iter().any(|it| it == anchor))
    };
    targets
        .filter(|target| !target.contains("://") && !leads(target))
        .map(|target| format!("{name}: the link to {target} leads nowhere"))
        .collect()
}

/// The pages that people read.
fn pages() -> Vec<String> {
    let docs = std::fs::read_dir(root().join("docs")).unwrap();
    let docs = docs.map(|entry| entry.unwrap().path());
    let docs = docs.filter(|path| path.extension().is_some_and(|ending| ending == "md"));
    let docs = docs.map(|path| format!("docs/{}", path.file_name().unwrap().to_str().unwrap()));
    let others = ["README.md", "CONTRIBUTING.md", "src/README.md"].map(str::to_owned);
    others.into_iter().chain(docs).collect()
}

/// A page that is not written yet says nothing, and so nothing false.
fn page(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_default()
}

#[test]
fn what_the_image_is_built_from_is_there_and_let_in() {
    let (ignore, recipe) = (page(".dockerignore"), page("Dockerfile"));
    let let_in: Vec<_> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let copies = recipe.lines().filter_map(|line| line.strip_prefix("COPY "));
    let copies: Vec<Vec<_>> = copies.map(|line| line.split_whitespace().collect()).collect();
    let sources = copies.iter().filter(|words| !words[0].starts_with("--"));
    let sources: Vec<_> = sources.flat_map(|words| &words[..words.len() - 1]).collect();
    assert!(sources.len() >= 5, "{sources:?}");
    for source in sources {
        assert!(root().join(source).exists() && let_in.contains(source), "{source}");
    }
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    // Pictures are files, too.
    let read = |path: &str| {
        let bytes = std::fs::read(root().join(path)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    };
    let dead = |name: &String| dead_links(name, &page(name), read);
    assert_clean(&pages().iter().flat_map(dead).collect::<Vec<_>>());
    let there = |path: &str| (path == "docs/b.md").then(|| "## Who, when?\n".to_owned());
    let text = "# A\n[1](b.md#who-when) [2](b.md#what) [3](c.md) [4](#a) [5](https://c.md)";
    let dead = dead_links("docs/a.md", text, there);
    assert_complains(&dead, &["to b.md#what leads", "to c.md leads"]);
}

#[test]
fn every_path_on_the_pages_exists() {
    let root = root();
    let exists =
        |path: &str| ["", "src", "tests"].iter().any(|base| root.join(base).join(path).exists());
    let lies = |name: &String| map(name, &page(name), exists);
    assert_clean(&pages().iter().flat_map(lies).collect::<Vec<_>>());
}

#[test]
fn every_module_is_on_the_map() {
    let modules = modules(&read(&root().join("src/lib.rs")));
    assert_clean(&unmapped(&modules, &page("src/README.md")));
}

#[test]
fn a_path_that_is_gone_and_a_module_left_out_are_caught() {
    let page = "Read `net/tls.rs`, `net/old.rs`, `src/gone`, `lost/`.\n```\n`a/b.rs`\n```\n\
                Call `POST /v1/chat/completions` or `groq/llama` at `http://a/b.rs`.";
    let exists = |path: &str| path == "net/tls.rs";
    let expected = ["README.md:1: `net/old.rs`", "`src/gone`", "`lost/`"];
    assert_complains(&map("README.md", page, exists), &expected);

    let modules = ["net".to_owned(), "http".to_owned(), "cli".to_owned()];
    assert_complains(&unmapped(&modules, "`net/tls.rs` and `http`"), &["`cli` is missing"]);
}
