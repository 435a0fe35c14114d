//! What it costs to find out which kind of work a call is.
//!
//! Run by `cargo bench --bench tasks`.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use switchpoint::route::task::{Prompt, classify, prepare};

fn main() {
    prepare();
    divan::main();
}

/// A question about a text that fills up to `size` bytes.
fn prompt(question: &str, text: &str, size: usize) -> String {
    let room = size.saturating_sub(question.len());
    format!("{question}{}", text.repeat(room / text.len()))
}

fn measure(bencher: Bencher, text: &str) {
    let prompt = Prompt { user: text, system: "You are a helpful assistant.", ..Prompt::default() };
    bencher.counter(BytesCount::new(text.len())).bench(|| classify(black_box(&prompt)));
}

const PROSE: &str = "The ferry company had run the same boats for sixty years when the council met, and no one \
     on the quay believed that anyone else would want the route. ";
const CYRILLIC: &str = "Учёные сравнили двадцать лет наблюдений и Пришли к выводу. ";
const CODE: &str = "    let total = rows.iter().map(|row| row.price_total()).sum::<u64>();\n";

#[divan::bench(args = [100, 4_096, 1_048_576])]
fn prose(bencher: Bencher, size: usize) {
    measure(bencher, &prompt("Summarize this:\n\n", PROSE, size));
}

#[divan::bench(args = [4_096])]
fn cyrillic(bencher: Bencher, size: usize) {
    measure(bencher, &prompt("Кратко изложи суть:\n\n", CYRILLIC, size));
}

#[divan::bench(args = [4_096])]
fn code(bencher: Bencher, size: usize) {
    measure(bencher, &prompt("Why is this slow?\n\n", CODE, size));
}
