# The worker: one static binary in an image with nothing else but root certificates.
#
#   docker build -t deletion-worker .
#
# Builds for the platform that it runs on, amd64 or arm64. The Rust version is rust-version in Cargo.toml.
ARG BUILD_IMAGE=rust:1.91-slim-trixie
ARG RUN_IMAGE=scratch

FROM ${BUILD_IMAGE} AS build
WORKDIR /build
# Static, so that it needs no C library to run; with a target named, build scripts and macros stay as they are.
ENV RUSTFLAGS="-C target-feature=+crt-static" CARGO_INCREMENTAL=0
# Dependencies in a layer of their own, built round an empty program: they are built again only if Cargo.lock changes.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src \
    && touch src/lib.rs \
    && echo 'fn main() {}' >src/main.rs \
    && cargo build --release --locked --target "$(rustc --print host-tuple)"
COPY src src
# A checkout may be older than the empty program, which cargo would then take for this one.
RUN touch src/lib.rs src/main.rs \
    && cargo build --release --locked --target "$(rustc --print host-tuple)" \
    && cp target/*/release/deletion-worker /deletion-worker

# What the release offers for download: docker build --target binary --output DIRECTORY .
FROM scratch AS binary
COPY --from=build /deletion-worker /deletion-worker

FROM ${RUN_IMAGE}
ARG VERSION=
ARG REVISION=
LABEL org.opencontainers.image.title="deletion-worker" \
      org.opencontainers.image.description="Consumes video deletion requests from RabbitMQ, coalesces them into full batches and calls the memories.ai delete endpoint" \
      org.opencontainers.image.licenses="Apache-2.0 OR MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /deletion-worker /deletion-worker
# Loopback, the default, would be the container's own: nobody could ask for metrics or health.
ENV DELETION_WORKER__ADMIN__LISTEN=0.0.0.0:9090
EXPOSE 9090
USER 65532:65532
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["/deletion-worker", "healthcheck"]
ENTRYPOINT ["/deletion-worker"]
CMD ["run"]
