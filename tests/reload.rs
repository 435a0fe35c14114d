//! A changed config takes over without a failed call, and a bad one does not take over at all.

use std::fmt::Write as _;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::Signal;
use tokio::time::Instant;

use crate::support::client::{chat, get};
use crate::support::gateway::{ADMIN_KEY, config, provider, route};
use crate::support::replies::{REPLY, ask, ask_stream, shown};
use crate::support::{Gateway, PATIENCE, Script, Upstream, replies, until};

async fn upstream() -> Upstream {
    let stream = Script::stream(replies::answer());
    Upstream::start([("one", [Script::json(200, REPLY)]), ("two", [stream])]).await
}

async fn generation(gateway: &Gateway) -> u64 {
    get(gateway.admin, "/admin/config", ADMIN_KEY).await.json()["generation"].as_u64().unwrap()
}

async fn reaches(gateway: &Gateway, wanted: u64) {
    let began = Instant::now();
    while generation(gateway).await < wanted {
        assert!(began.elapsed() < PATIENCE, "generation {wanted} never came");
    }
}

/// A config in which the `n`-th variant differs from all others.
fn variant(upstream: &Upstream, n: usize) -> String {
    let routes = route("fast", &["up/one"], "") + &route(&format!("extra-{n}"), &["up/one"], "");
    provider("up", upstream) + &routes
}

#[tokio::test]
async fn a_hundred_reloads_under_load_fail_no_call() {
    let upstream = upstream().await;
    let gateway = Gateway::start("", &variant(&upstream, 0)).await;
    let (over, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    let load = async |model: &str| {
        while !over.load(Ordering::Relaxed) {
            let whole = chat(&gateway, ask("fast")).await;
            assert_eq!((whole.status, whole.text()), (200, REPLY));
            let stream = chat(&gateway, ask_stream(model)).await;
            assert_eq!((stream.status, stream.text()), (200, shown().as_str()));
            calls.fetch_add(2, Ordering::Relaxed);
        }
    };
    let reloads = async {
        for n in 1..=100 {
            let before = calls.load(Ordering::Relaxed);
            let answer = gateway.reload(&variant(&upstream, n)).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            until("calls go on", || calls.load(Ordering::Relaxed) > before).await;
        }
        over.store(true, Ordering::Relaxed);
    };
    tokio::join!(reloads, load("up/two"), load("up/two"), load("up/two"));
    // The watcher may have seen a file before it was asked to be read, so there can be more.
    assert!(generation(&gateway).await >= 101);
    assert!(gateway.metric("switchpoint_config_generation", &[]).await >= 101.0);
    assert!(gateway.metric("switchpoint_config_reloads_total", &["accepted"]).await >= 100.0);
    // Its pool was kept: a provider that stays the same is not connected to anew.
    let made = upstream.connections().len();
    assert!(made <= 40, "{made} connections for {} calls", calls.load(Ordering::Relaxed));
}

#[tokio::test]
async fn a_bad_file_is_refused_whole_and_the_old_one_serves_on() {
    let upstream = upstream().await;
    let gateway = Gateway::start("", &variant(&upstream, 0)).await;
    for bad in [
        "this is no TOML".to_owned(),
        String::new(),
        variant(&upstream, 1) + "[routes.typo]\ntargets = [\"nobody/x\"]\n",
        variant(&upstream, 1) + "[no_such_section]\nx = 1\n",
        provider("up", &upstream).replace("openai-compatible", "no-such-kind"),
    ] {
        let answer = gateway.reload(&bad).await;
        assert_eq!(answer.status, 400, "{bad}");
        assert!(answer.text().contains("config.toml"), "names the place: {}", answer.text());
        let told = get(gateway.admin, "/admin/config", ADMIN_KEY).await.json();
        assert_eq!(told["generation"], 1);
        assert!(told["last_error"]["problems"][0].is_string(), "{told}");
        assert_eq!(chat(&gateway, ask("fast")).await.status, 200);
        assert_eq!(chat(&gateway, ask("extra-0")).await.status, 200);
    }
    assert!(gateway.metric("switchpoint_config_reloads_total", &["refused"]).await >= 4.0);
    assert_eq!(gateway.reload(&variant(&upstream, 2)).await.status, 200);
    let told = get(gateway.admin, "/admin/config", ADMIN_KEY).await.json();
    assert!(told["last_error"].is_null(), "{told}");
    assert_eq!(chat(&gateway, ask("extra-2")).await.status, 200);
    assert_eq!(chat(&gateway, ask("extra-0")).await.status, 404);
}

#[tokio::test]
async fn a_swapped_configmap_and_a_hangup_are_noticed() {
    let upstream = upstream().await;
    let folder = tempfile::tempdir().unwrap();
    let inside = |name: &str| folder.path().join(name);
    for n in 0..2 {
        std::fs::create_dir(inside(&format!("..{n}"))).unwrap();
        let text = config("", &variant(&upstream, n));
        std::fs::write(inside(&format!("..{n}/config.toml")), text).unwrap();
    }
    symlink("..0", inside("..data")).unwrap();
    symlink("..data/config.toml", inside("config.toml")).unwrap();
    let gateway = Gateway::run(folder, "").await;
    assert_eq!(chat(&gateway, ask("extra-0")).await.status, 200);

    let folder = gateway.folder();
    symlink("..1", folder.join("..data_tmp")).unwrap();
    std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    reaches(&gateway, 2).await;
    assert_eq!(chat(&gateway, ask("extra-1")).await.status, 200);
    assert_eq!(chat(&gateway, ask("extra-0")).await.status, 404);

    gateway.signal(Signal::HUP);
    reaches(&gateway, 3).await;
}

/// The time it took is printed, for a debug build and a busy machine say little.
#[tokio::test]
async fn a_large_config_answers_soon_after_the_start() {
    let upstream = upstream().await;
    let mut sections = String::new();
    for n in 0..50 {
        sections += &provider(&format!("up-{n}"), &upstream);
    }
    for n in 0..200 {
        let target = format!("up-{}/one", n % 50);
        let _ = write!(sections, "{}", route(&format!("route-{n}"), &[&target], ""));
    }
    let began = Instant::now();
    let gateway = Gateway::start("", &sections).await;
    let answer = chat(&gateway, ask("route-199")).await;
    println!("start to first answer: {:?}", began.elapsed());
    assert_eq!((answer.status, answer.text()), (200, REPLY));
}
