# Developer tasks.

default:
    @just --list

# What CI runs.
ci:
    bash .ci/run

# Every test, root or not.
test:
    cargo test --workspace

# Deliberate breakages, each of which must fail the test it names: `just breakages dry-run-writes`.
breakages *names:
    cargo run -q -p xtask -- breakages {{names}}

# Formatting, Clippy and the tree's own rules.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    cargo run -q -p xtask -- tidy

# Replay recorded answers of upstream against a fresh API server: `just parity crud`.
parity *groups:
    cargo build --release -p skiff && bash xtask/parity.sh {{groups}}

# The budgets, measured.
bench *what:
    cargo build --release -p skiff
    cargo run --release -p bench -- {{what}}
