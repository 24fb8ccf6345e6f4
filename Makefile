# make help lists the targets.
CARGO ?= cargo
TARGET ?= x86_64-unknown-linux-musl
PREFIX ?= /usr/local
STATIC := target/static/plimsoll

.PHONY: help run test test-slow bench static fuzz install

help: ## lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

run: need-cargo ## builds and serves on 127.0.0.1:8080 (ARGS="--work 20ms" passes options)
	$(CARGO) run --release --locked -- $(ARGS)

test: need-cargo ## everything: format, lints, unit, integration, property and doc tests
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets --features internals,r2d2 -- -D warnings
	$(CARGO) test --locked --features internals,r2d2
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --quiet --features internals,r2d2
	.ci/no-async-runtime

test-slow: need-cargo ## the tests that take longer than ten seconds
	$(CARGO) test --locked --release -- --ignored

bench: need-cargo ## times the parts and the whole, into target/bench (QUICK=1 in under a minute)
	$(CARGO) bench --locked --features internals --bench '*'

static: need-cargo ## the static binary, stripped: target/static/plimsoll
	@mkdir -p target/static
	@if rustup target add $(TARGET) >/dev/null 2>&1; then \
		$(CARGO) build --release --locked --target $(TARGET) && \
		cp target/$(TARGET)/release/plimsoll $(STATIC); \
	else \
		echo "target $(TARGET) can't be added; using the static C runtime of the host's"; \
		host=$$($(CARGO) -vV | sed -n 's/^host: //p') && \
		RUSTFLAGS="-C target-feature=+crt-static" $(CARGO) build --release --locked --target $$host && \
		cp target/$$host/release/plimsoll $(STATIC); \
	fi
	@ls -l $(STATIC)

fuzz: need-cargo ## runs each fuzz target for a bounded time (needs a nightly toolchain)
	.ci/fuzz

install: static ## installs the static binary to $(PREFIX)/bin
	install -D -m 755 $(STATIC) $(DESTDIR)$(PREFIX)/bin/plimsoll

.PHONY: need-cargo
need-cargo:
	@command -v $(CARGO) >/dev/null || { echo "cargo is missing: install Rust (the distribution's rustc and cargo, or rustup)"; exit 1; }
