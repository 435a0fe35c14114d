//! Fault by fault what must follow, by the rules.

use std::time::{Duration, SystemTime};

use super::wire::Wire;
use crate::support::Script;
use crate::support::script::Step;

/// One fault.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) form: Form,
    pub(super) setting: Setting,
    pub(super) script: Script,
    pub(super) then: Then,
}

/// Which questions meet the fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Both,
    Whole,
    Stream,
}

/// How the route is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setting {
    /// A, then B.
    Plain,
    /// Nobody listens at A.
    Nobody,
    /// The same, with context windows of these sizes.
    Windows(u32, u32),
    /// A, and B among the fallbacks of this kind, with context windows of these sizes.
    Fallback(&'static str, u32, u32),
}

/// What must follow.
#[derive(Debug, Clone, Copy)]
pub(super) enum Then {
    /// B answers; A's attempt came to this outcome and status.
    Next(&'static str, u16),
    /// A's own answer passes, with so many tokens.
    Own(usize),
    /// The client is refused with this status and code, and B is never asked.
    Final(u16, &'static str),
    /// The client has so many tokens of A and an error of this code; the outcome is recorded.
    Broken(usize, &'static str, &'static str),
}

/// A reset throws away what was not read yet, so it waits until that has been.
const PAUSE: Duration = Duration::from_millis(200);

/// Every fault of an upstream that speaks like this.
pub(super) fn rows(wire: Wire) -> Vec<Row> {
    [connections(wire), beginnings(wire), middles(wire), statuses(wire), refusals(wire)]
        .into_iter()
        .flatten()
        .collect()
}

fn row(name: &'static str, form: Form, script: Script, then: Then) -> Row {
    Row { name, form, setting: Setting::Plain, script, then }
}

/// What goes wrong before the first byte of an answer, or instead of it.
fn connections(wire: Wire) -> Vec<Row> {
    let (error, broken, slow) = (
        Then::Next("upstream_error", 0),
        Then::Next("upstream_truncated", 0),
        Then::Next("timeout", 0),
    );
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    let half = &wire.whole(40, false)[..120];
    let begun = format!("{head}content-length: 5000\r\n\r\n{half}");
    let short = |script: Script| script.wait(PAUSE);
    let cut = Then::Next("upstream_truncated", 200);
    vec![
        Row { setting: Setting::Nobody, ..row("refused", Form::Both, Script::default(), error) },
        row("reset", Form::Both, Script::default().reset(), broken),
        row("closed", Form::Both, Script::default().close(), broken),
        row("silence", Form::Both, Script::default().stall(), slow),
        row("not-http", Form::Both, Script::raw("SSH-2.0-OpenSSH_9.9\r\n").close(), broken),
        row(
            "whole-silence-behind-head",
            Form::Whole,
            Script::raw(format!("{head}content-length: 99\r\n\r\n")).stall(),
            Then::Next("timeout", 200),
        ),
        row(
            "whole-stall",
            Form::Whole,
            Script::raw(begun.clone()).stall(),
            Then::Next("timeout", 200),
        ),
        row("whole-fin", Form::Whole, short(Script::raw(begun.clone())).close(), cut),
        row("whole-rst", Form::Whole, short(Script::raw(begun)).reset(), cut),
        row(
            "whole-bad-chunk",
            Form::Whole,
            Script::raw(format!("{head}transfer-encoding: chunked\r\n\r\nzz\r\n")).close(),
            cut,
        ),
        row(
            "whole-truncated-chunk",
            Form::Whole,
            Script::raw(format!("{head}transfer-encoding: chunked\r\n\r\n80\r\n{half}"))
                .wait(PAUSE)
                .close(),
            cut,
        ),
        row("whole-empty", Form::Whole, Script::json(200, ""), cut),
        row("whole-malformed", Form::Whole, Script::json(200, half), cut),
        row(
            "whole-html",
            Form::Whole,
            Script::reply(200, &[("content-type", "text/html")], "<html>Welcome!</html>"),
            cut,
        ),
    ]
}

/// What goes wrong with a stream before its first content.
fn beginnings(wire: Wire) -> Vec<Row> {
    let open = || Script::stream_head().chunks([wire.preamble()]);
    let pings = |script: Script| {
        let pings = Script::default().chunks(vec![wire.ping(); 300]);
        Script([script.0, pings.paced(Duration::from_millis(20)).0].concat()).stall()
    };
    let error = wire.error_event();
    // Anthropic's word for it has a status of its own.
    let overloaded = Then::Next("upstream_error", if wire == Wire::Chat { 200 } else { 529 });
    let (slow, told, cut) = (
        Then::Next("timeout", 200),
        Then::Next("upstream_error", 200),
        Then::Next("upstream_truncated", 200),
    );
    vec![
        row("silence-behind-head", Form::Stream, Script::stream_head().stall(), slow),
        row("silence-behind-preamble", Form::Stream, open().stall(), slow),
        row("pings-alone", Form::Stream, pings(Script::stream_head()), slow),
        row("preamble-and-pings", Form::Stream, pings(open()), slow),
        row("error-first", Form::Stream, Script::stream_head().chunks([&error]).end(), overloaded),
        row("error-behind-preamble", Form::Stream, open().chunks([&error]).end(), overloaded),
        row("empty-stream", Form::Stream, Script::stream_head().end(), cut),
        row("end-alone", Form::Stream, Script::stream([wire.end()]), cut),
        row("preamble-alone", Form::Stream, Script::stream([wire.preamble()]), cut),
        row("preamble-and-end", Form::Stream, Script::stream([wire.preamble(), wire.end()]), cut),
        row("cut-behind-preamble", Form::Stream, open().wait(PAUSE).reset(), cut),
        row(
            "error-in-200",
            Form::Both,
            Script::json(200, &wire.error("api_error", None, "No.")),
            told,
        ),
    ]
}

/// What goes wrong with a stream of which the client has some.
fn middles(wire: Wire) -> Vec<Row> {
    let begun = |count| Script::stream_head().chunks([wire.preamble()]).chunks(wire.tokens(count));
    let cut = Then::Broken(40, "stream_truncated", "upstream_truncated");
    // `[DONE]` is said by gateways that were cut off, too; `message_stop` is an end of its own.
    let unexplained = if wire == Wire::Chat { cut } else { Then::Own(40) };
    let piece = "data: {\"choices\":[{\"delta\":";
    let garbled = [vec![wire.preamble()], wire.tokens(2)].concat();
    let garbled = garbled.into_iter().chain([format!("{piece}\n\n")]);
    let garbled = garbled.chain(wire.finish(false)).chain([wire.end()]);
    let finished = || begun(2).chunks(wire.finish(false));
    vec![
        row(
            "stall-after-20",
            Form::Stream,
            begun(20).stall(),
            Then::Broken(20, "upstream_timeout", "timeout"),
        ),
        row("fin-after-40", Form::Stream, begun(40).wait(PAUSE).close(), cut),
        row("rst-after-40", Form::Stream, begun(40).wait(PAUSE).reset(), cut),
        row(
            "truncated-chunk-after-40",
            Form::Stream,
            begun(40).then(Step::Send(format!("80\r\n{piece}").into())).wait(PAUSE).close(),
            cut,
        ),
        row(
            "bad-chunk-after-40",
            Form::Stream,
            begun(40).wait(PAUSE).then(Step::Send("zz\r\n".into())).close(),
            cut,
        ),
        row(
            "error-after-20",
            Form::Stream,
            begun(20).wait(PAUSE).chunks([wire.error_event()]).end(),
            Then::Broken(20, "upstream_error", "upstream_error"),
        ),
        row(
            "no-finish",
            Form::Stream,
            begun(40).wait(PAUSE).chunks([wire.end()]).end(),
            unexplained,
        ),
        row("neither-finish-nor-end", Form::Stream, begun(40).end(), cut),
        row("no-end", Form::Stream, finished().end(), Then::Own(2)),
        row("no-end-and-silence", Form::Stream, finished().stall(), Then::Own(2)),
        row("malformed-event", Form::Stream, Script::stream(garbled), Then::Own(2)),
    ]
}

/// What statuses mean that say no more.
fn statuses(wire: Wire) -> Vec<Row> {
    let kinds = |status| match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        500 | 502 | 504 => "api_error",
        503 | 529 => "overloaded_error",
        _ => "invalid_request_error",
    };
    let refusal = |status| {
        let kind = if wire == Wire::Chat { "scripted" } else { kinds(status) };
        wire.error(kind, None, "A scripted refusal.")
    };
    let named = |name, status, headers: &[(&str, &str)], then| {
        row(name, Form::Both, Script::reply(status, headers, refusal(status)), then)
    };
    let next = |name, status, outcome| named(name, status, &[], Then::Next(outcome, status));
    let limited = |name, header| named(name, 429, &[header], Then::Next("rate_limited", 429));
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(30));
    vec![
        named("400", 400, &[], Then::Final(400, "invalid_request")),
        next("401", 401, "upstream_error"),
        next("402", 402, "upstream_error"),
        next("403", 403, "upstream_error"),
        next("404", 404, "upstream_error"),
        next("408", 408, "timeout"),
        next("409", 409, "upstream_error"),
        next("413", 413, "refused"),
        named("422", 422, &[], Then::Final(422, "invalid_request")),
        next("425", 425, "upstream_error"),
        next("429", 429, "rate_limited"),
        limited("429-seconds", ("retry-after", "30")),
        limited("429-date", ("retry-after", date.as_str())),
        limited("429-ms", ("retry-after-ms", "30000")),
        next("500", 500, "upstream_error"),
        next("502", 502, "upstream_error"),
        next("503", 503, "upstream_error"),
        next("504", 504, "timeout"),
        next("529", 529, "upstream_error"),
    ]
}

/// What is refused for what was asked.
fn refusals(wire: Wire) -> Vec<Row> {
    let (kind, code) = ("invalid_request_error", Some("context_length_exceeded"));
    let long = "prompt is too long: 2000 tokens > 1000 maximum";
    let long = || Script::json(400, &wire.error(kind, code, long));
    let (unsafe_code, text) =
        (Some("content_filter"), "Output blocked by content filtering policy");
    let filtered = || Script::json(400, &wire.error(kind, unsafe_code, text));
    let over = |name, setting, then| Row { setting, ..row(name, Form::Both, long(), then) };
    let (no, next) = (Then::Final(400, "context_too_long"), Then::Next("refused", 400));
    let other = Setting::Fallback("content_filter", 1000, 1000);
    vec![
        over("context-of-unknown-size", Setting::Plain, no),
        over("context-no-larger", Setting::Windows(1000, 1000), no),
        over("context-smaller", Setting::Windows(2000, 1000), no),
        over("context-larger", Setting::Windows(1000, 9000), next),
        over("context-fallback", Setting::Fallback("context", 1000, 9000), next),
        over("context-general-fallback", Setting::Fallback("general", 1000, 1000), no),
        row("content-filter", Form::Both, filtered(), Then::Final(400, "content_filtered")),
        Row { setting: other, ..row("content-filter-fallback", Form::Both, filtered(), next) },
        row(
            "content-filter-in-200",
            Form::Whole,
            Script::json(200, &wire.whole(2, true)),
            Then::Own(2),
        ),
        row(
            "content-filter-in-stream",
            Form::Stream,
            Script::stream(wire.answer(true)),
            Then::Own(2),
        ),
    ]
}
