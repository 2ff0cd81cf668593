# The broker in an image of its own: docker build -t anabranch . && docker run -p 9092:9092 -p 4567:4567 anabranch
# Both stages are of one Debian release, so that what the binary was linked with is there where it runs.
FROM rust:1-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends libclang-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /anabranch
COPY . .
# The target folder is a cache, so that RocksDB is built once and not after every change.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/anabranch/target \
    cargo build --release --locked --bin anabranch \
    && cp target/release/anabranch /usr/local/bin/anabranch

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends libstdc++6 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /data anabranch \
    && install -d -o anabranch -g anabranch /data
COPY --from=build /usr/local/bin/anabranch /usr/local/bin/anabranch
USER anabranch
VOLUME /data
ENV ANABRANCH_DATA_DIR=/data \
    ANABRANCH_KAFKA_ADDR=0.0.0.0:9092@127.0.0.1:9092 \
    ANABRANCH_HTTP_ADDR=0.0.0.0:4567
EXPOSE 9092 4567
# SIGTERM lets open requests end.
STOPSIGNAL SIGTERM
ENTRYPOINT ["anabranch"]
CMD ["serve"]
