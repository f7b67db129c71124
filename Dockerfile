# The dashboard in a container; docs/operating.md says how to run it.
#
# The base of the second stage has glibc, the certificates of authorities (for a relay with TLS) and
# nothing to log in with: no shell, no package manager. A static binary on an empty base would lack
# both the certificates and glibc's way of looking up names. Both stages are of the same Debian, so
# that the binary finds the glibc that it was linked with.

FROM rust:1.95.0-slim-trixie AS build
# OpenSSL is compiled, by make and perl.
RUN apt-get update \
  && apt-get install -y --no-install-recommends make perl \
  && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# Else rustup would fetch clippy and rustfmt, which rust-toolchain.toml names for developers.
ENV RUSTUP_TOOLCHAIN=1.95.0
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
  cargo build --release --locked \
  && install -D target/release/tosend-dashboard /image/usr/local/bin/tosend-dashboard \
  && install -d -m 700 -o 65532 -g 65532 /image/var/lib/tosend-dashboard

FROM gcr.io/distroless/cc-debian13:nonroot
COPY --from=build /image/usr/local/bin/tosend-dashboard /usr/local/bin/tosend-dashboard
# A new volume takes over the owner of what is there.
COPY --from=build --chown=65532:65532 /image/var/lib/tosend-dashboard /var/lib/tosend-dashboard
# By number, so that Kubernetes can tell that it is not root.
USER 65532:65532
# The default database and secret are in data/ below it.
WORKDIR /var/lib/tosend-dashboard
VOLUME /var/lib/tosend-dashboard
ENV TOSEND_LISTEN=0.0.0.0:8080
EXPOSE 8080
# A new version may have to rewrite a big table first.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m --retries=3 \
  CMD ["/usr/local/bin/tosend-dashboard", "healthcheck"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/tosend-dashboard"]
