# Everyday commands; `make check` is what CI runs.

CARGO ?= cargo

.DEFAULT_GOAL := help
.PHONY: help demo test simulate lint doc check

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do printf '  %-8s %s\n' "$$name" "$$text"; done

demo: ## the whole system on this machine: broker, mock endpoint, worker, load
	$(CARGO) run --release --locked -- demo

test: ## every test
	$(CARGO) test --locked

SEEDS ?= 1000000

simulate: ## SEEDS=n random schedules, from seed FROM=n or 0; prints how far it is, and the first that fails
	CARGO_PROFILE_TEST_OPT_LEVEL=2 SEEDS=$(SEEDS) $(CARGO) test --locked --lib nothing_is_lost_blamed_or_stuck -- --nocapture

lint: ## formatting and clippy, warnings refused
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked -- -D warnings

doc: ## the API documentation, warnings refused
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --no-deps --locked

check: ## everything CI checks, in the same way
	.ci/run
