# The service: `docker build -t keyreeve .`, then as docs/operations.md says.
FROM node:24-bookworm-slim AS build
WORKDIR /build
COPY package.json package-lock.json ./
RUN npm ci
COPY . ./
# The image holds what the package holds, and what the lockfile names of its dependencies.
RUN npm pack && mkdir keyreeve && tar -xzf keyreeve-*.tgz --strip-components=1 -C keyreeve
# libsql does not say which C library its binaries need, so npm installs those for both.
RUN cp package-lock.json keyreeve/ && npm ci --omit=dev --prefix keyreeve && rm -rf keyreeve/node_modules/@libsql/*-musl

FROM node:24-bookworm-slim
COPY --from=build /build/keyreeve /usr/local/lib/keyreeve
RUN ln -s ../lib/keyreeve/dist/cli/main.js /usr/local/bin/keyreeve && install -d -o node -g node /keyreeve/data
# Where the defaults of the settings lead: config/keyspaces.yaml is to be mounted here, and data is a volume.
WORKDIR /keyreeve
VOLUME /keyreeve/data
# The root file system may be read-only: what SQLite cannot sort in memory goes beside the data.
ENV SQLITE_TMPDIR=/keyreeve/data
# By number, so that Kubernetes can tell that it is not root.
USER 1000:1000
# Listens on the container's own loopback until KEYREEVE_LISTEN says otherwise, which takes TLS and callers.
EXPOSE 50051
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["keyreeve", "health", "--own", "--timeout", "3s"]
ENTRYPOINT ["keyreeve"]
CMD ["serve"]
