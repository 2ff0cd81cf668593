# One profile, release: RocksDB takes 16 to 25 minutes to build on two cores and is built once for everything here.

export PATH := $(HOME)/.cargo/bin:$(PATH)
TARGET = $(or $(CARGO_TARGET_DIR),target)

.PHONY: run build test compat bench fmt lint setup

## Builds and serves; settings go into ARGS, as in make run ARGS="--durability sync"
run: build
	@exec "$(TARGET)/release/anabranch" serve $(ARGS)

## The release binary, at target/release/anabranch or below CARGO_TARGET_DIR
build: setup
	cargo build --release --locked

## Every test: clients first, so that the summaries of cargo close the output
test: setup
	cargo test --release --locked --lib --bins --tests --no-run
	compat/run --available --short
	cargo test --release --locked --lib --bins --tests

## Every client and the jobs that take minutes; fails when one cannot run here
compat: build
	compat/run

## The same loads for this broker and its peers, as a table; settings go into ARGS, as in make bench ARGS="--rounds 1"
bench: build
	compat/bench/bench $(ARGS)

fmt:
	cargo fmt

lint: setup
	cargo fmt --check
	cargo clippy --release --locked --all-targets -- --deny warnings

## Installs what is missing on Debian and Ubuntu; elsewhere says what it is
setup:
	@tools/setup
