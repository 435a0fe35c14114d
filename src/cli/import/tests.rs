//! Nothing of another gateway's config is lost without a word.

use std::path::Path;

use super::*;

/// The fixtures of one gateway, read.
fn fixtures(peer: Peer) -> Vec<(String, Json)> {
    let folder = peer.to_possible_value().unwrap().get_name().to_owned();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/imports").join(folder);
    let files = std::fs::read_dir(root).unwrap().map(|file| file.unwrap().path());
    let configs = files.filter(|path| {
        let ending = path.extension().unwrap_or_default();
        ending == "yaml" || ending == "json"
    });
    configs.map(|path| (path.display().to_string(), read(&path).unwrap())).collect()
}

/// JSON pointers to all tables.
fn tables(value: &Json, here: &str, found: &mut Vec<String>) {
    match value {
        Json::Object(members) => {
            found.push(here.to_owned());
            for (name, inner) in members {
                let name = name.replace('~', "~0").replace('/', "~1");
                tables(inner, &format!("{here}/{name}"), found);
            }
        }
        Json::Array(elements) => {
            for (place, inner) in elements.iter().enumerate() {
                tables(inner, &format!("{here}/{place}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn a_setting_that_nobody_knows_is_named_wherever_it_stands() {
    const STRANGE: &str = "zz_strange";
    let mut silent = Vec::new();
    for peer in Peer::value_variants() {
        for (file, config) in fixtures(*peer) {
            let mut places = Vec::new();
            tables(&config, "", &mut places);
            for place in places {
                let mut config = config.clone();
                let table = config.pointer_mut(&place).and_then(Json::as_object_mut).unwrap();
                table.insert(STRANGE.to_owned(), Json::from("strange"));
                let report = Report::default();
                let draft = peer.import(config, &report);
                let said = format!("{}{}", report.write(), draft.write());
                // Where a whole table is not carried over, its name is said and not its parts.
                let named = said.contains(STRANGE) || is_said_to_be_gone(&said, &place);
                silent.extend((!named).then(|| format!("{file}: {place}")));
            }
        }
    }
    assert!(silent.is_empty(), "lost without a word: {silent:#?}");
}

/// Whether a line says of a place, or of a table above it, that it does not come along.
fn is_said_to_be_gone(said: &str, place: &str) -> bool {
    let above: Vec<&str> = place.split('/').filter(|name| !name.is_empty()).collect();
    (1..=above.len()).any(|depth| {
        let path = format!(" {}: ", numbered(&above[..depth].join(".")));
        let gone = |line: &str| {
            ["lost", "unknown"].iter().any(|fate| line.starts_with(fate))
                || line.contains("left out")
        };
        said.lines().any(|line| gone(line) && line.contains(&path))
    })
}

/// `a.0.b` as `a[0].b`.
fn numbered(path: &str) -> String {
    let mut text = String::new();
    for part in path.split('.') {
        if part.bytes().all(|byte| byte.is_ascii_digit()) {
            text = format!("{text}[{part}]");
        } else {
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(part);
        }
    }
    text
}
