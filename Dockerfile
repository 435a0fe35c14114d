# docker build -t switchpoint .
# docker run -p 4000:4000 -p 4001:4001 -e OPENAI_API_KEY -e SWITCHPOINT_ADMIN_KEY switchpoint
FROM rust:1.95-slim-bookworm AS build
# jemalloc is built from C.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev make \
  && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY Cargo.toml Cargo.lock rust-toolchain.toml build.rs ./
COPY .cargo .cargo
COPY benches benches
COPY src src
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/build/target \
  cargo build --locked --release --bin switchpoint && cp target/release/switchpoint /switchpoint

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /switchpoint /usr/local/bin/switchpoint
# The key made at the first start and other state belong to whoever mounts this folder.
WORKDIR /home/nonroot
EXPOSE 4000 4001
# Beyond loopback the admin listener starts only with an admin key: set SWITCHPOINT_ADMIN_KEY.
# A config file is given by SWITCHPOINT_CONFIG; without one, providers are found by their key
# variables, such as OPENAI_API_KEY.
ENTRYPOINT ["switchpoint", "serve", "--listen", "0.0.0.0:4000", "--admin-listen", "0.0.0.0:4001"]
