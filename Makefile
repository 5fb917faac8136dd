# The two commands of the README: `make demo` and `make test`. Both do all the set-up that a fresh machine needs.

export SQLX_OFFLINE = true

TOOLS := target/tools

.PHONY: demo test unit lint docs sqlx check-sqlx deny soak fuzz bench bench-peers setup

# A private PostgreSQL, a pretend imoje, and months of billing in less than a minute.
demo: setup
	cargo run --quiet --locked -- demo $(DEMO)

# Everything that a change has to pass.
test: setup lint docs check-sqlx unit

setup:
	@.ci/install-postgres

# Two tests for each core: many of them wait, for processes, deadlines and commits.
unit:
	@.ci/install-browser
	@RUST_TEST_THREADS=$${RUST_TEST_THREADS:-$$((2 * $$(getconf _NPROCESSORS_ONLN)))} PATH="$$(.ci/install-tools $(CURDIR)/$(TOOLS)):$$PATH" cargo test --locked

# What comes from outside, spoilt at random for longer than in `make test`. BOLERO_RANDOM_SEED=n repeats a failure.
SECONDS ?= 60
fuzz:
	BOLERO_RANDOM_TEST_TIME_MS=$$(( $(SECONDS) * 1000 )) BOLERO_RANDOM_ITERATIONS=1000000000000 \
		cargo test --locked --test fuzz -- --skip corpus

lint:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings

docs:
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items --quiet

# The compile-time record of every query, from which the crate builds without a database.
sqlx:
	rm -rf .sqlx && mkdir .sqlx
	touch src/lib.rs
	SQLX_OFFLINE=false SQLX_OFFLINE_DIR="$(CURDIR)/.sqlx" .ci/with-postgres cargo check --locked --all-targets --quiet

check-sqlx:
	@rm -rf target/sqlx && mkdir -p target/sqlx
	@touch src/lib.rs
	SQLX_OFFLINE=false SQLX_OFFLINE_DIR="$(CURDIR)/target/sqlx" .ci/with-postgres cargo check --locked --all-targets --quiet
	@diff -r .sqlx target/sqlx || { echo "error: .sqlx is out of date; run: make sqlx" >&2; exit 1; }

# Months of simulated billing under faults for each of SEEDS seeds from FROM on, and so many KILLS of real daemons; docs/soak.md.
SEEDS := 1000
FROM := 1
KILLS := 10000
soak: setup
	CYKL_SOAK_SEEDS=$(SEEDS) CYKL_SOAK_FROM=$(FROM) cargo test --locked --profile soak --test it -- --nocapture simulation:: crash_points::
	CYKL_SOAK_KILLS=$(KILLS) cargo test --locked --profile soak --test it -- --nocapture daemons_that_are_killed

# What may become a dependency. Needs cargo-deny.
deny:
	cargo deny check bans licenses sources

# Every figure of docs/performance.md, in 25 minutes, also as target/bench.json. BENCH="cpu claim" measures two of them.
bench: setup
	cargo bench --locked --bench suite -- --json $(CURDIR)/target/bench.json $(BENCH)
	@[ -n '$(BENCH)' ] || benches/peers/run --jobs 5000

# Other job systems doing the same debit, for comparison. Needs Node and the package registries.
bench-peers: setup
	cargo build --release --locked --bin cykl
	benches/peers/run
