# SpeedMimi in a container: built with the toolchain it asks for, shipped on an image that has the C library, authorities
# and a user without rights, and neither a shell nor a package manager.
#
#   docker build -t speedmimi .
#   docker run --rm -p 8080:8080 --ulimit nofile=1048576 speedmimi
#   docker run ... -v ./my.yaml:/etc/speedmimi/config.yaml:ro speedmimi

FROM rust:1.90-bookworm AS build
WORKDIR /src
COPY . .
# For `speedmimi --version`: the history is not copied.
ARG SPEEDMIMI_COMMIT=unknown
ENV SPEEDMIMI_COMMIT=${SPEEDMIMI_COMMIT}
RUN cargo build --release --locked --package speedmimi --bin speedmimi

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/speedmimi /usr/bin/speedmimi
COPY dist/container.yaml /etc/speedmimi/config.yaml
USER 65532:65532
EXPOSE 8080/tcp
# SIGTERM drains: give it more time than server.shutdown_timeout (docker run --stop-timeout).
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["/usr/bin/speedmimi", "healthcheck", "--config", "/etc/speedmimi/config.yaml"]
ENTRYPOINT ["/usr/bin/speedmimi"]
CMD ["run", "--config", "/etc/speedmimi/config.yaml"]
