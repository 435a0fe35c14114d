//! What guards cost: how much later a stream's first token comes, how much of a text waits, and the
//! time they take on text with nothing to find and with something, whole and in pieces.
//!
//! Run by `cargo bench --bench guards`.

mod delay;

use std::path::Path;
use std::sync::{Arc, LazyLock};

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use switchpoint::config::{Config, Stage};
use switchpoint::guard::{Chain, Filter, Guards, Vault};

const CONFIG: &str = r#"
[providers.demo]
kind = "demo"
[routes.fast]
targets = ["demo/demo"]
[guards.pii]
kind = "pii"
stage = ["output"]
action = "mask"
[guards.secrets]
kind = "secrets"
stage = ["output"]
action = "mask"
[guards.pattern]
kind = "pattern"
words = ["aurora", "borealis"]
stage = ["output"]
action = "mask"
[guards.urls]
kind = "urls"
hosts = ["example.org"]
stage = ["output"]
action = "mask"
"#;
const NAMES: &[&str] = &["none", "pattern", "pii", "secrets", "urls", "all"];

static GUARDS: LazyLock<Guards> = LazyLock::new(|| {
    let config =
        Config::parse(CONFIG, Path::new("bench.toml"), &["demo"]).unwrap_or_else(|_| exit());
    Guards::build(&config.guards).unwrap_or_else(|_| exit())
});

const PROSE: &str = "The ferry company had run the same boats for sixty years when the council met, and no one \
     on the quay believed that anyone else would want the route, at 14 crossings a day. ";
const FULL: &str = "Write to alice@example.org or call +49 30 901820, and pay with 4111 1111 1111 1111 by \
     Friday; the rest of it is in https://files.test/a?b=c, as ever. ";

fn main() {
    LazyLock::force(&GUARDS);
    delay::tell();
    held();
    divan::main();
}

/// Only on a mistake in the config above.
fn exit<T>() -> T {
    unreachable!("the config of the bench is wrong")
}

fn chain(name: &str) -> Chain {
    let names: &[&str] = match name {
        "none" => &[],
        "all" => &["secrets", "pii", "urls", "pattern"],
        _ => &[name],
    };
    GUARDS.chain(names, Stage::Output)
}

/// Tells how many characters of prose wait, on average and at most, as one after the other comes.
fn held() {
    println!("held back of prose, in characters: mean, most");
    let text = PROSE.repeat(8);
    for name in NAMES {
        let (chain, vault) = (chain(name), Arc::new(Vault::default()));
        let (mut scan, mut out) = (chain.scan(&vault), String::new());
        let (mut all, mut most) = (0, 0);
        for (place, letter) in text.char_indices() {
            let _ = scan.feed(letter.encode_utf8(&mut [0; 4]), &mut out);
            let waits = place + letter.len_utf8() - out.len().min(place + 1);
            (all, most) = (all + waits, most.max(waits));
        }
        let mean = all as f64 / text.len() as f64;
        println!("  {name:8} {mean:5.1} {most:4}");
    }
}

fn whole(bencher: Bencher, name: &str, sentence: &str) {
    let text = sentence.repeat(4096 / sentence.len());
    let (chain, vault) = (chain(name), Arc::new(Vault::default()));
    bencher
        .counter(BytesCount::new(text.len()))
        .bench_local(|| chain.scan(&vault).whole(black_box(&text)));
}

#[divan::bench(args = NAMES)]
fn prose_4_kib(bencher: Bencher, name: &str) {
    whole(bencher, name, PROSE);
}

#[divan::bench(args = NAMES)]
fn personal_4_kib(bencher: Bencher, name: &str) {
    whole(bencher, name, FULL);
}

/// As somebody sends it who wants it to be slow.
#[divan::bench(args = NAMES)]
fn digits_4_kib(bencher: Bencher, name: &str) {
    whole(bencher, name, "1234567890 12345678901234567890");
}

/// As a model says it: four bytes at a time.
#[divan::bench(args = NAMES)]
fn streamed_4_kib(bencher: Bencher, name: &str) {
    let text = PROSE.repeat(4096 / PROSE.len());
    let (chain, vault) = (chain(name), Arc::new(Vault::default()));
    bencher.counter(BytesCount::new(text.len())).bench_local(|| {
        let (mut scan, mut out) = (chain.scan(&vault), String::new());
        for piece in text.as_bytes().chunks(4) {
            let piece = std::str::from_utf8(piece).unwrap_or_default();
            let _ = scan.feed(black_box(piece), &mut out);
        }
        let _ = scan.finish(&mut out);
        out
    });
}
