#   docker build -t registry.example.com/azure-key-vault-filter:0.1.0 .
#
# makes the image that Istio (WasmPlugin) and Envoy Gateway (EnvoyExtensionPolicy) pull: nothing but plugin.wasm, in
# one layer. The other targets are for the compose files: emulator, envoy, kong. With BuildKit (Docker 23 and later, or
# DOCKER_BUILDKIT=1) only what a target needs is built; the classic builder builds every stage above it.

ARG RUST_VERSION=1.95
ARG ENVOY_VERSION=v1.40-latest
# The last version of which Kong publishes open-source images.
ARG KONG_VERSION=3.9

# --- What is compiled: what .dockerignore lets through, so that a change in the documents compiles nothing.
FROM rust:${RUST_VERSION}-bookworm AS source
WORKDIR /filter
COPY . .

# --- The emulated Azure, and an upstream that shows what it gets. Not as root: both listen on ports that the compose
# files open to everybody. New volumes at these folders take the folders' owner.
FROM source AS tools
RUN cargo build --locked --release --package envoy-test --bins

FROM debian:bookworm-slim AS emulator
COPY --from=tools /filter/target/release/azure-emulator /filter/target/release/echo-upstream /usr/local/bin/
RUN mkdir /authority /authority-key && chown 65534:65534 /authority /authority-key && chmod 700 /authority-key
USER 65534:65534

# --- The filter, by the same command as everywhere else, so that it has the same hash.
FROM source AS build
RUN rustup target add wasm32-wasip1
RUN cargo xtask build --standard

# --- Gateways with the filter in them.
FROM envoyproxy/envoy:${ENVOY_VERSION} AS envoy
COPY --from=build /filter/target/dist/azure_key_vault_filter.wasm /etc/envoy/azure_key_vault_filter.wasm

FROM kong:${KONG_VERSION} AS kong
COPY --from=build /filter/target/dist/azure_key_vault_filter.wasm /filter/target/dist/azure_key_vault_filter.meta.json /usr/local/kong/filters/

# --- The default: the filter alone. --build-arg VERSION=… REVISION=… SOURCE=… for a release.
FROM scratch AS filter
ARG VERSION=0.1.0
ARG REVISION=
ARG SOURCE=
LABEL org.opencontainers.image.title="azure-key-vault-filter" \
      org.opencontainers.image.description="Proxy-Wasm filter that puts Azure Key Vault secrets into HTTP traffic" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
COPY --from=build /filter/target/dist/azure_key_vault_filter.wasm ./plugin.wasm
