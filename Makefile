# `make help` lists what there is. Everything runs in the dev profile, so that RocksDB is compiled once (see Cargo.toml).

# Clones share one build of RocksDB: about ten minutes of C++ on two cores.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/millstream-target
# rustup puts cargo here; a shell that is older than that does not know. A tool in the PATH goes first.
export PATH := $(PATH):$(HOME)/.cargo/bin

SEEDS ?= 20000
KILLS ?= 200
FLIPS ?= 1000
CALLS ?= all
ARGS ?=

# Runs the tests of the binary `it` whose name begins with $(1), and fails where there is none.
define it
@if cargo nextest --version >/dev/null 2>&1; then \
	cargo nextest run --workspace --all-features --locked --test it --no-capture -E 'test(/^$(1)/)'; \
else \
	cargo test --workspace --all-features --locked --test it -- --list '$(1)' | grep -q ': test$$' \
		|| { echo 'no test is called $(1)…' >&2; exit 1; }; \
	cargo test --workspace --all-features --locked --test it -- --nocapture '$(1)'; \
fi
endef

.PHONY: help pages setup demo test sim canaries kill9 damage iofault diskfull newuser bench loadtest peers fmt doc ci

help: ## Lists the targets
	@sed -n 's/^\([a-z0-9]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | while IFS='	' read -r name text; do \
		printf '  make %-10s %s\n' "$$name" "$$text"; done

setup: ## Installs what the build needs and is missing: a C++ compiler, libclang (apt)
	@sh dev/setup

demo: setup ## Word count that is killed in mid-stream, restarted and judged; ARGS=--plant-bug must turn red
	cargo run --locked --example demo -- $(ARGS)

test: setup ## All tests; uses cargo-nextest and cargo-deny when they are there
	@if cargo deny --version >/dev/null 2>&1; then \
		echo cargo deny --all-features --locked check bans licenses sources; \
		cargo deny --all-features --locked check bans licenses sources; \
	else echo 'cargo-deny is not installed: bans, licences and sources are not checked'; fi
	@if cargo nextest --version >/dev/null 2>&1; then \
		echo cargo nextest run --workspace --all-features --locked; \
		cargo nextest run --workspace --all-features --locked; \
	else \
		echo cargo test --workspace --all-features --locked --all-targets; \
		cargo test --workspace --all-features --locked --lib --bins --tests --examples; \
	fi
	cargo test --doc --workspace --all-features --locked

sim: export MILLSTREAM_SIM_SEEDS = $(SEEDS)
sim: setup ## The simulator over SEEDS=20000 seeds
	$(call it,simulation::)

canaries: setup ## Planted bugs, each of which the simulator must find
	$(call it,canaries::)

kill9: export MILLSTREAM_KILLS = $(KILLS)
kill9: setup ## KILLS=200 times SIGKILL against a child with a real RocksDB, judged from outside
	cargo build --workspace --all-features --locked --example ledger
	$(call it,kill9::)

damage: export MILLSTREAM_FLIPS = $(FLIPS)
damage: setup ## Every file of a store flipped in FLIPS=1000 bits, cut, deleted, swapped: detected, harmless, or a failure
	$(call it,damage::)

iofault: export MILLSTREAM_FAILING_CALLS = $(CALLS)
iofault: setup ## CALLS=all: every write, sync and rename of a short run fails once, with EIO, ENOSPC, or done by half
	cargo build --workspace --all-features --locked --example ledger
	$(call it,failing_calls::)

diskfull: setup ## A pipeline, a fold and a recovery on a disk that is full for a while; needs root for its tmpfs
	$(call it,disk_full::)

bench: setup ## The benches, our crates fully optimised; ARGS=name picks one, e.g. ARGS=keyed_count
	cargo --config dev/bench.toml bench --profile dev --workspace --all-features --locked --benches -- $(ARGS)

loadtest: setup ## The load tester, our crates fully optimised; ARGS='run keyed-count --rate 100k/s', see docs/load-testing.md
	@cargo --config dev/bench.toml build --quiet --profile dev --workspace --all-features --locked --bin millstream-loadtest
	@"$(CARGO_TARGET_DIR)/debug/millstream-loadtest" $(ARGS)

peers: ## Other engines that the benches compare with (timely, Flink); never needed to use millstream
	cargo build --release --locked --manifest-path loadtest/peers/Cargo.toml --target-dir loadtest/peers/target
	sh loadtest/peers/flink/build

pages: export MILLSTREAM_WRITE_DOCS = 1
pages: setup ## Writes the generated parts of the documentation anew
	$(call it,configuration::)
	$(call it,conformance::)
	$(call it,guarantees::)
	$(call it,generated::)
	$(call it,explain::)
	cargo nextest run -p millstream-loadtest --all-features --locked -E 'test(/schemas/)'

newuser: setup ## The README's program in a new crate outside the workspace: builds, runs, and goes on where it stopped
	sh dev/new-user

fmt: ## Formats the sources
	cargo fmt --all

doc: setup ## API documentation; prints where it is
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --all-features --no-deps --locked
	@echo "$(CARGO_TARGET_DIR)/doc/millstream/index.html"

ci: ## What CI runs
	bash .ci/run
