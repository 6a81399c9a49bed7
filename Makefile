# Everyday commands; `make check` is what CI runs.

CARGO ?= cargo
# Which RabbitMQ: empty for the one that is found, 4 for a 4.x in a Debian of its own (docs/testing.md, RabbitMQ 4).
BROKER ?=
# For `soak`: how long, and whose faults: the seed of an earlier run.
MINUTES ?= 30
SEED ?=
# For `test-compose`: whether images are made here instead of pulled.
STANDINS ?=
# For `fuzz`: how long.
SECONDS ?= 60

on_4 := --config 'target."cfg(unix)".runner = "$(CURDIR)/tests/rabbitmq-4.sh"'
on_broker := $(if $(BROKER),$(or $(on_$(BROKER)),$(error BROKER is 4 or nothing)))

.DEFAULT_GOAL := help
.PHONY: help demo test test-deploy test-compose test-slow test-faults simulate fuzz soak bench budget micro lint doc check

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do printf '  %-12s %s\n' "$$name" "$$text"; done

demo: ## the whole system on this machine: broker, mock endpoint, worker, load
	$(CARGO) $(on_broker) run --release --locked -- demo

test: ## every test; with BROKER=4 on RabbitMQ 4
	$(CARGO) $(on_broker) test --locked

test-deploy: ## the chart, alert rules, dashboard, image, compose file and workflows
	tests/deploy/run.sh

test-compose: ## docker-compose.yml for real, needs Docker; with STANDINS=1 also where no image can be pulled
	STANDINS=$(STANDINS) tests/deploy/compose.sh

test-faults: ## the whole fault matrix, printed as a table: minutes
	FAULT_MOMENTS=all $(CARGO) test --locked --test integration faults:: -- --include-ignored --nocapture \
	    --test-threads=4 --skip broker_faults::

soak: ## load, faults and workers that come and go, all at once, for MINUTES=30
	$(CARGO) build --release --locked
	SOAK_MINUTES=$(MINUTES) SOAK_SEED=$(SEED) DELETION_WORKER_BINARY=$(or $(CARGO_TARGET_DIR),$(CURDIR)/target)/release/deletion-worker \
	    $(CARGO) $(on_broker) test --locked --test integration -- --ignored --exact soak::everything_at_once --nocapture

fuzz: ## hostile input to the parsers: make fuzz SECONDS=600
	FUZZ_SECONDS=$(SECONDS) $(CARGO) test --locked --test fuzz -- --test-threads=16

SEEDS ?= 1000000

simulate: ## SEEDS=n random schedules, from seed FROM=n or 0; prints how far it is, and the first that fails
	CARGO_PROFILE_TEST_OPT_LEVEL=2 SEEDS=$(SEEDS) $(CARGO) test --locked --lib nothing_is_lost_blamed_or_stuck -- --nocapture

test-slow: ## what takes minutes: a million dead letters
	$(CARGO) test --locked --test integration -- --ignored a_million_letters

ROUNDS ?= 5

budget: ## what parser and engine cost a message, in instructions and allocations, and fail if that is more than it was
	$(CARGO) test --release --locked --test bench -- --ignored --exact micro::budgets --nocapture

micro: ## the same, in time
	$(CARGO) test --release --locked --test bench -- --ignored --exact micro::times --nocapture

bench: ## how fast it drains, beside what it could be compared to: ROUNDS=5
	tests/bench/run.sh --rounds $(ROUNDS)

lint: ## formatting and clippy, warnings refused
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked -- -D warnings

doc: ## the API documentation, warnings refused
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --no-deps --locked

check: ## everything CI checks, in the same way
	.ci/run
