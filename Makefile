# make help lists the targets.
CARGO ?= cargo
TARGET ?= $(shell uname -m)-unknown-linux-musl
PREFIX ?= /usr/local
STATIC := target/static/plimsoll
# What lints, tests and documentation are built with: all that the crate has, but for the allocator of the static binary.
FEATURES := internals,r2d2,redis
# Most tests wait more than they compute.
export RUST_TEST_THREADS ?= $(shell expr 4 \* $$(getconf _NPROCESSORS_ONLN))

.PHONY: help run test test-slow bench static test-static fuzz install

help: ## lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

run: need-cargo ## builds and serves on 127.0.0.1:8080 (ARGS="--work 20ms" passes options)
	$(CARGO) run --release --locked -- $(ARGS)

test: need-cargo ## format, lints, unit, integration, property and doc tests, all but those of make test-slow
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets --features $(FEATURES) -- -D warnings
	$(CARGO) test --locked --features $(FEATURES)
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --quiet --features $(FEATURES)
	.ci/no-async-runtime

test-slow: need-cargo ## the tests that take longer than ten seconds
	$(CARGO) test --locked --profile slow --test plimsoll -- --ignored

bench: static ## measures the parts and the whole beside peers, into target/bench, in fourteen minutes (QUICK=1: in one and a half); the first time it compiles for six minutes and more
	@rm -f target/bench/*.figures
	$(CARGO) bench --locked --features internals --bench plimsoll

static: need-cargo ## the static binary, stripped: target/static/plimsoll (TARGET=aarch64-unknown-linux-musl crosses)
	.ci/static $(TARGET)

test-static: need-cargo ## the static binary's size, and one request to it; the same for i686, and by qemu-user for aarch64 and armv7
	.ci/test-static

fuzz: need-cargo ## runs each fuzz target for a bounded time (needs a nightly toolchain)
	.ci/fuzz

install: static ## installs the static binary to $(PREFIX)/bin
	install -D -m 755 $(STATIC) $(DESTDIR)$(PREFIX)/bin/plimsoll

.PHONY: need-cargo
need-cargo:
	@command -v $(CARGO) >/dev/null || { echo "cargo is missing: install Rust (the distribution's rustc and cargo, or rustup)"; exit 1; }
