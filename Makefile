# Everyday commands; `make check` is what CI runs.

CARGO ?= cargo

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint doc check

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do printf '  %-9s %s\n' "$$name" "$$text"; done

demo: ## the whole system on this machine: broker, mock endpoint, worker, load
	$(CARGO) run --release --locked -- demo

test: ## every test
	$(CARGO) test --locked

test-slow: ## what takes minutes: a million dead letters
	$(CARGO) test --locked --test integration -- --ignored a_million_letters

lint: ## formatting and clippy, warnings refused
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked -- -D warnings

doc: ## the API documentation, warnings refused
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --no-deps --locked

check: ## everything CI checks, in the same way
	.ci/run
