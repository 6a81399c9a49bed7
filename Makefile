# Everyday commands; `make check` is what CI runs.

CARGO ?= cargo

.DEFAULT_GOAL := help
.PHONY: help demo test test-faults lint doc check

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do printf '  %-12s %s\n' "$$name" "$$text"; done

demo: ## the whole system on this machine: broker, mock endpoint, worker, load
	$(CARGO) run --release --locked -- demo

test: ## every test
	$(CARGO) test --locked

test-faults: ## the whole fault matrix, printed as a table: minutes
	FAULT_MOMENTS=all $(CARGO) test --locked --test integration faults:: -- --include-ignored --nocapture \
	    --test-threads=2 --skip broker_faults::

lint: ## formatting and clippy, warnings refused
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked -- -D warnings

doc: ## the API documentation, warnings refused
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --no-deps --locked

check: ## everything CI checks, in the same way
	.ci/run
