# The commands people type. `just check` is what CI runs, minus what needs a network.

# Everything that must hold before a commit.
check:
    cargo fmt --check
    cargo clippy --all-targets --all-features -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items
    cargo test
    cargo deny check licenses bans sources

test *arguments:
    cargo test {{arguments}}

# How much the gateway adds, beside a bare proxy in the same run.
bench *arguments:
    cargo bench --bench compare -- {{arguments}}

fmt:
    cargo fmt

# The official SDKs against a gateway and a scripted upstream.
sdk:
    tests/sdk/run.sh --install
    SWITCHPOINT_TEST_SDK=1 cargo test --test main sdk

# Every query of every board, and the alerts, on a real Prometheus.
boards:
    cargo build
    tests/dashboards.py target/debug/switchpoint

# Any bytes at all against what reads bytes: one target or all, so many seconds each.
fuzz target="all" seconds="60":
    tests/fuzz/run.sh {{target}} {{seconds}}
