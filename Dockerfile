# syntax=docker/dockerfile:1
#
#   docker build -t registry.example.com/azure-key-vault-filter:0.1.0 .
#
# makes the image that Istio (WasmPlugin) and Envoy Gateway (EnvoyExtensionPolicy) pull: nothing but plugin.wasm, in
# one layer. The other targets are for the compose files: emulator, envoy, kong.

ARG RUST_VERSION=1.95
ARG ENVOY_VERSION=v1.40-latest
# The last version of which Kong publishes open-source images.
ARG KONG_VERSION=3.9

# --- The filter, by the same command as everywhere else, so that it has the same hash.
FROM rust:${RUST_VERSION}-bookworm AS build
RUN rustup target add wasm32-wasip1
WORKDIR /filter
COPY . .
RUN cargo xtask build

# --- The emulated Azure, and an upstream that shows what it gets.
FROM rust:${RUST_VERSION}-bookworm AS tools
WORKDIR /filter
COPY . .
RUN cargo build --locked --release --package envoy-test --bins

FROM debian:bookworm-slim AS emulator
COPY --from=tools /filter/target/release/azure-emulator /filter/target/release/echo-upstream /usr/local/bin/

# --- Gateways with the filter in them.
FROM envoyproxy/envoy:${ENVOY_VERSION} AS envoy
COPY --from=build /filter/target/dist/azure_key_vault_filter.wasm /etc/envoy/azure_key_vault_filter.wasm

FROM kong:${KONG_VERSION} AS kong
COPY --from=build /filter/target/dist/azure_key_vault_filter.wasm /filter/target/dist/azure_key_vault_filter.meta.json /usr/local/kong/filters/

# --- The default: the filter alone.
FROM scratch AS filter
LABEL org.opencontainers.image.title="azure-key-vault-filter" \
      org.opencontainers.image.description="Proxy-Wasm filter that puts Azure Key Vault secrets into HTTP traffic" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /filter/target/dist/azure_key_vault_filter.wasm ./plugin.wasm
